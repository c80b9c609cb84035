"""Declares the fields of the comparison; `experiments/results/compare` has their defaults."""

from typing import Any

import optax

from experiments.common.arm_checks import check_as_named
from experiments.common.arms import matched_horizon, parse
from experiments.common.errors import ConfigError
from experiments.common.fields import Field, arms, at_least, each_once, one_of, positive, share
from experiments.compare.systems import NAMES

ARMS = (
    "bptt",
    "tbptt(16)",
    "tbptt(16, draw_offset=True)",
    "tbptt_k1_k2(16, 8)",
    "tbptt_k1_k2(16, 32)",
    "tbptt_k1_k2(16, 32, mode='past_weights')",
    "tbptt_k1_k2(16, 32, mode='reforward')",
    "tbptt_k1_k2(16, 32, losses='window')",
    f"tbptt({matched_horizon(16)})",
    "adaptive_tbptt(16)",
    "awd_lstm_bptt(16)",
    "uncompensated(16, alpha=4)",
    "artbp(16, alpha=4)",
    "artbp(16, alpha=6)",
    "artbp(16, law='geometric')",
    "random_truncation(16)",
    "unbiased_tbptt(16, windows=1.5, alpha=4)",
    "rtrl(16)",
    "snap1(16)",
    "uoro(16)",
    "forward_gradient(16)",
    "truncated_es(16)",
    "pes(16)",
    "gpes(16, 64)",
    "nres(16)",
)

FIELDS = {
    "arms": Field(ARMS, "the estimators, in the order of the table", arms()),
    "systems": Field(NAMES, "what they are trained on", one_of(*NAMES), each_once),
    "loss_every": Field(16, "time steps between losses in the system unroll_end", at_least(2)),
    "num_steps": Field(
        30_000, "each training may evaluate the cell as often as TBPTT does in so many", at_least(1)
    ),
    "num_learning_steps": Field(30_000, "the same for the task to learn", at_least(1)),
    "num_tuning_runs": Field(3, "trainings that choose the rate", at_least(1)),
    "num_seeds": Field(5, "trainings that are reported", at_least(1)),
    "sgd_rates": Field(
        (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
        "η of SGD with the rate η/√(1 + t), t in time steps",
        positive,
    ),
    "adam_rates": Field((1e-3, 3e-3, 1e-2, 3e-2, 1e-1), "of Adam, on the task", positive),
    "distance": Field(20, 'of the brackets, in the task "brackets"', at_least(1)),
    "hidden_size": Field(16, "of its model", at_least(1)),
    "batch": Field(8, "of its model", at_least(1)),
    "scored_part": Field(0.2, "the last part of a training, whose mean loss is scored", share),
    "num_threads": Field(2, "trainings at the same time", at_least(1)),
}


def check(config: Any) -> None:
    """Raises ConfigError for an optimiser or a sequence that the systems do not have."""
    for arm in map(parse, config.arms):
        if arm.optimizer is optax.adam:
            check_as_named("arms", arm)
        elif tuple(config.systems) != ("learning",):
            raise ConfigError(
                f"arms holds {arm.text}: one system alone has an optimiser for which RMSprop can "
                "stand. Expected systems=('learning',)."
            )
