"""The fields of the experiment."""

from typing import Any

from experiments.common import fields
from experiments.common.arms import Arm, parse
from experiments.common.errors import ConfigError
from experiments.common.fields import Field, at_least, positive, share

WINDOWS = ("tbptt(4)", "tbptt(8)", "tbptt(16)", "tbptt(32)", "bptt")
RANDOM = ("uncompensated(8, alpha=4)", "artbp(8, alpha=4)")
LOOK_BACK = "unbiased_tbptt(8, windows=1.5, alpha=4)"
KINDS = ("tbptt", "bptt", "artbp", "uncompensated", "unbiased_tbptt")

FIELDS = {
    "arms": Field((*WINDOWS, *RANDOM, LOOK_BACK), "the estimators", fields.arms()),
    "seed": Field(0, "of all keys", fields.seed),
    "num_tuning_runs": Field(2, "runs that choose the learning rates", at_least(1)),
    "num_seeds": Field(5, "runs that are reported", at_least(2, "a spread needs at least 2")),
    "corridor_length": Field(16, "steps from the cue to the turn", at_least(1)),
    "num_rows": Field(64, "mazes side by side", at_least(1)),
    "rollout_length": Field(64, "steps of each row between two sets of updates", at_least(2)),
    "num_iterations": Field(80, "rollouts; the last quarter gives the return", at_least(4)),
    "num_epochs": Field(4, "passes over a rollout", at_least(1)),
    "num_minibatches": Field(2, "of rows, with an update each, in a pass", at_least(1)),
    "hidden_size": Field(32, "of the GRU", at_least(1)),
    "discount": Field(0.99, "γ", share),
    "gae_lambda": Field(0.95, "λ of the advantages", share),
    "clip": Field(0.2, "ε of the clipped objective", positive),
    "value_weight": Field(0.5, "of the loss of the value", at_least(0)),
    "entropy_weight": Field(0.01, "of the entropy bonus", at_least(0)),
    "clip_norm": Field(0.5, "of the gradient", positive),
    "learning_rates": Field((1e-3, 3e-3, 1e-2), "of Adam, for each arm", positive),
    "num_threads": Field(2, "arms trained at the same time", at_least(1)),
}


def chosen_arms(config: Any) -> list[Arm]:
    """Returns the arms of the configuration."""
    return [parse(text) for text in config.arms]


def check(config: Any) -> None:
    """Raises ConfigError for minibatches or arms that do not fit."""
    if config.num_rows % config.num_minibatches:
        given = f"num_minibatches was given {config.num_minibatches}"
        raise ConfigError(f"{given}: expected a divisor of num_rows = {config.num_rows}.")
    for arm in chosen_arms(config):
        given = f"arms holds {arm.text}"
        if arm.name not in KINDS:
            raise ConfigError(f"{given}: expected one of {', '.join(KINDS)}.")
        if arm.name == "bptt" and arm.length is not None:
            raise ConfigError(f"{given}: expected bptt, without a length.")
        if arm.length is not None and not arm.length < config.rollout_length:
            limit = f"rollout_length = {config.rollout_length}"
            raise ConfigError(f"{given}: expected a length below {limit}.")
