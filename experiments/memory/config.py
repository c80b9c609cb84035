"""Declares the fields of the experiment, and the arm that trains the readout alone."""

from dataclasses import replace
from typing import Any

import jax

from artbp import GradientEstimator
from experiments.common import fields
from experiments.common.arms import GREY, Arm, named, parse, tbptt
from experiments.common.errors import ConfigError
from experiments.common.fields import Field, at_least, positive, rising, whole


@named
def readout_alone(length: int) -> Arm:
    """Keeps the recurrent weights at their initial values; TBPTT trains the readout."""
    arm = tbptt(length)

    def make(cell: Any, loss_fn: Any, **options: Any) -> GradientEstimator:
        return arm.make(cell.with_params(jax.lax.stop_gradient), loss_fn, **options)

    return replace(arm, make=make, label="readout alone", color=GREY)


OWN = {"readout_alone": readout_alone}
ARMS = ("readout_alone(8)", "tbptt(2)", "tbptt(4)", "tbptt(8)", "bptt(32)", "artbp(8, alpha=4)")
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)

FIELDS = {
    "arms": Field(ARMS, "the estimators; fixed lengths divide an episode", fields.arms(OWN)),
    "seed": Field(0, "of all keys", fields.seed),
    "num_tuning_runs": Field(2, "runs that choose the learning rates", at_least(1)),
    "num_seeds": Field(4, "runs that are reported", at_least(2, "a spread needs at least 2")),
    "episode_length": Field(32, "time steps", at_least(2)),
    "num_episodes": Field(768, "of a training; the last quarter chooses the rate", at_least(4)),
    "batch": Field(32, "rows read side by side", at_least(1)),
    "hidden_size": Field(32, "of the LSTM", at_least(1)),
    "lags": Field(
        (1, 8, 16, 24, 31), "with a training of their own, and in the tables", whole(1), rising
    ),
    "learning_rates": Field(RATES, "of Adam, for each arm and training", positive),
    "test_episodes": Field(64, "of a seed, in each row", at_least(1)),
    "num_threads": Field(2, "arms trained at the same time", at_least(1)),
}


def chosen_arms(config: Any) -> list[Arm]:
    """Returns the arms of the configuration."""
    return [parse(text, OWN) for text in config.arms]


def check(config: Any) -> None:
    """Raises ConfigError for lags or segments that do not fit into an episode."""
    length = config.episode_length
    if max(config.lags) >= length:
        given = f"lags was given {config.lags}"
        raise ConfigError(f"{given}: expected integers from 1 to {length - 1}.")
    for arm in chosen_arms(config):
        given = f"arms holds {arm.text}"
        if arm.law is None or arm.length is None:
            raise ConfigError(f"{given}: expected segments of a length given.")
        if arm.name == "readout_alone":
            continue  # its gradient does not go back, wherever it is cut
        if arm.claims.random:
            if not 1 < arm.length < length:
                raise ConfigError(f"{given}: expected less than an episode, {length}.")
        elif length % arm.length or (arm.length == length) != (arm.name == "bptt"):
            raise ConfigError(
                f"{given}: expected lengths that divide episode_length = {length} and are "
                f"smaller, or bptt({length})."
            )
