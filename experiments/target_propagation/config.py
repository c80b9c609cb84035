"""Declares the fields of the experiment, and target propagation as an arm."""

from dataclasses import replace
from typing import Any

import optax

import artbp
from artbp.contrib.target_propagation import target_propagation as make_target_propagation
from experiments.common import fields
from experiments.common.arm_checks import check_as_named
from experiments.common.arms import Arm, bptt, named, parse
from experiments.common.errors import ConfigError
from experiments.common.fields import Field, at_least, positive, whole
from experiments.common.figures import COLOURS


@named
def target_propagation(
    length: int, num_segments: int, target_steps: int, multiplier_updates: int = 0
) -> Arm:
    """Target propagation over `num_segments` segments of `length` steps."""
    if num_segments < 2:
        raise ValueError(f"num_segments={num_segments}; expected an integer ≥ 2.")

    def make(cell: Any, loss_fn: Any, *, penalty: Any, **options: Any) -> artbp.GradientEstimator:
        return make_target_propagation(
            cell,
            loss_fn,
            truncation_length=length,
            num_segments=num_segments,
            penalty=penalty,
            target_optimizer=optax.sgd(TARGET_RATE / penalty),
            target_steps=target_steps,
            multiplier_updates=multiplier_updates,
            **options,
        )

    rounds = max(1, multiplier_updates)
    words = f", multiplier updates: {multiplier_updates}" if multiplier_updates else ""
    return replace(
        bptt(num_segments * length),
        make=make,
        label=f"target propagation {length}, {rounds * target_steps} target steps{words}",
        color=COLOURS[5],
        # The forward pass, the gradient, and each step on the targets as one more gradient.
        evaluations=lambda size: 1 + 3 + 3 * rounds * target_steps + multiplier_updates,
    )


TARGET_RATE = 0.3  # times 1/λ
OWN = {"target_propagation": target_propagation}
ARMS = (
    "tbptt(4)",
    "bptt(32)",
    "target_propagation(4, 8, 2)",
    "target_propagation(4, 8, 8)",
    "target_propagation(4, 8, 8, 1)",
)

FIELDS = {
    "arms": Field(ARMS, "what is compared", fields.arms(OWN)),
    "lag": Field(10, "steps after which a bit is to be named", at_least(1)),
    "sequence_length": Field(32, "time steps; the first `lag` have no loss", at_least(2)),
    "num_sequences": Field(1000, "of a training of full BPTT, in each row", at_least(10)),
    "batch": Field(32, "rows read side by side", at_least(1)),
    "hidden_size": Field(32, "units of the GRU", at_least(1)),
    "learning_rates": Field((1e-3, 3e-3, 1e-2, 3e-2, 1e-1), "of Adam, for each arm", positive),
    "penalties": Field((0.1, 1.0, 10.0), "λ of target propagation", positive),
    "test_sequences": Field(20, "in each row", whole(1)),
    "num_tuning_runs": Field(1, "runs that choose the learning rate and λ", at_least(1)),
    "num_seeds": Field(4, "runs that are reported", at_least(2, "a range needs at least 2")),
    "seed": Field(0, "of all keys", fields.seed),
}


def chosen_arms(config: Any) -> list[Arm]:
    """Returns the arms of the configuration."""
    return [parse(text, OWN) for text in config.arms]


def check(config: Any) -> None:
    """Raises ConfigError for lags or segments that do not fit into a sequence."""
    length = config.sequence_length
    if config.lag >= length:
        raise ConfigError(f"lag is {config.lag}: expected less than sequence_length = {length}.")
    for arm in chosen_arms(config):
        if arm.length is None or length % arm.length:
            expected = f"expected updates after a number of steps that divides {length}"
            raise ConfigError(f"arms holds {arm.text}: {expected}.")
        check_as_named("arms", arm, length)
