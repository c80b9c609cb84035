"""Declares the fields of the experiment."""

from typing import Any

import numpy as np

from experiments.common.arm_checks import check_plain_segments
from experiments.common.arms import matched_horizon, parse
from experiments.common.errors import ConfigError
from experiments.common.fields import Field, arms, at_least, positive, seed
from experiments.phase.budget import KINDS

# All store 61 states on average, see `budget`.
ARMS = (f"tbptt({matched_horizon(16)})", "artbp(16, alpha=4)", "artbp(31, law='geometric')")
ARMS += ("unbiased_tbptt(45, windows=1.5, alpha=4, mode='reforward')",)
ARMS += ("unbiased_tbptt(45, hazard=0.75, mode='reforward')",)

FIELDS = {
    "arms": Field(ARMS, "of equal memory", arms(finite_variance=True)),
    "seed": Field(0, "of all keys", seed),
    "mean_length": Field(16, "L0, the unit that memories are given in", at_least(2)),
    "stored_carries": Field(8, "of unbiased TBPTT, see `artbp.unbiased_tbptt`", at_least(1)),
    "later_power": Field(0.5, "S, see `system`", positive),
    "noise": Field(3.0, "σ, see `system`", at_least(0)),
    "start": Field(2.0, "θ at first: beyond every fixed point, so that none is passed"),
    "num_steps": Field(3000, "time steps of a training of TBPTT and ARTBP", at_least(1)),
    "first_rate": Field(-4.5, "rates to choose from, predicted or trained: 10^first_rate"),
    "last_rate": Field(-1.5, "to 10^last_rate"),
    "rates_per_decade": Field(4, "of these rates", at_least(1)),
    "memories": Field((0.125, 16.0), "the least and the most of the map, in units of L0", positive),
    "batches": Field((1, 256), "the fewest and the most rows of the map", positive),
    "trained_memories": Field((0.5, 2.0, 4.0, 8.0, 16.0), "the points that are trained", positive),
    "trained_batches": Field((1, 8, 64), "the points that are trained", positive),
    "num_tuning_runs": Field(64, "runs that choose the rate", at_least(2)),
    "num_seeds": Field(128, "runs that are reported", at_least(2)),
    "num_threads": Field(2, "trainings at the same time", at_least(1)),
}


def rates(config: Any) -> np.ndarray:
    """Returns the learning rates to choose from."""
    number = round((config.last_rate - config.first_rate) * config.rates_per_decade) + 1
    return np.logspace(config.first_rate, config.last_rate, number)


def check(config: Any) -> None:
    """Raises ConfigError for limits in a wrong order, or an arm without a prediction."""
    first, last = config.first_rate, config.last_rate
    if not first < last:
        given = f"first_rate and last_rate were given {first} and {last}"
        raise ConfigError(f"{given}: expected powers of ten, the smaller one first.")
    for name in ("memories", "batches"):
        given = config[name]
        if len(given) != 2 or not given[0] < given[1]:
            raise ConfigError(f"{name} was given {given}: expected the least and the most of it.")
    parsed = [parse(text) for text in config.arms]
    kinds = {arm.name for arm in parsed}
    if not kinds <= set(KINDS) or len(kinds) < 2:
        given = f"arms holds {', '.join(sorted(kinds))}"
        raise ConfigError(f"{given}: expected two or more of {', '.join(KINDS)}.")
    for arm in parsed:
        if arm.arguments.get("mode", "reforward") != "reforward":
            reason = "the memory is counted for mode='reforward' only"
            raise ConfigError(f"arms holds {arm.text}: {reason}.")
        check_plain_segments("arms", arm)
