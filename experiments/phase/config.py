"""The configuration of the experiment: every field, and what it means."""

from typing import Any

import ml_collections
import numpy as np

from experiments.common.config import check_alpha, check_at_least, check_positive, check_seed
from experiments.common.errors import ConfigError


def default_config() -> ml_collections.ConfigDict:
    """The fields; a file and `--set` change them."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.mean_length = 16  # L0, and the K of TBPTT
    config.alpha = 4.0
    config.later_power = 0.5  # S, see `system`
    config.noise = 3.0  # σ
    config.start = 2.0  # θ at first: beyond every fixed point, so that none is passed on the way
    config.num_steps = 3000  # time steps of a training
    # Learning rates to choose from, predicted or trained: from 10^first to 10^last.
    config.first_rate = -4.5
    config.last_rate = -1.5
    config.rates_per_decade = 4
    # The map: memory ÷ L0 and rows, doubled and halved again from the least to the most.
    config.memories = (0.125, 16.0)
    config.batches = (1, 256)
    # The points that are trained.
    config.trained_memories = (0.5, 2.0, 4.0, 8.0, 16.0)
    config.trained_batches = (1, 8, 64)
    config.num_tuning_seeds = 64  # that choose the rate
    config.num_seeds = 128  # that are reported
    config.num_threads = 2
    return config


def rates(config: Any) -> np.ndarray:
    """The learning rates to choose from."""
    number = round((config.last_rate - config.first_rate) * config.rates_per_decade) + 1
    return np.logspace(config.first_rate, config.last_rate, number)


def check_config(config: Any) -> None:
    """Raises ConfigError for a value that the experiment cannot run with."""
    check_seed("seed", config.seed)
    check_at_least(config, 1, "num_steps", "rates_per_decade", "num_threads")
    check_at_least(config, 2, "mean_length", "num_tuning_seeds", "num_seeds")
    check_alpha(config)
    check_positive(config, "later_power", "trained_memories", "trained_batches")
    check_at_least(config, 0, "noise")
    if not config.first_rate < config.last_rate:
        raise ConfigError(
            f"first_rate and last_rate were given {config.first_rate} and {config.last_rate}: "
            "expected powers of ten, the smaller one first."
        )
    for name in ("memories", "batches"):
        given = config[name]
        if len(given) != 2 or not 0 < given[0] < given[1]:
            raise ConfigError(f"{name} was given {given}: expected the least and the most of it.")
