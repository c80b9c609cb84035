"""The configuration of the experiment: every field, and what it means."""

from typing import Any

import ml_collections

from experiments.common.config import (
    check_alpha,
    check_at_least,
    check_not_empty,
    check_positive,
    check_seed,
)
from experiments.common.errors import ConfigError
from experiments.teacher_forcing.training import ESTIMATORS


def default_config() -> ml_collections.ConfigDict:
    """Teacher forcing and three lengths of free runs, under TBPTT and ARTBP."""
    config = ml_collections.ConfigDict()
    config.hidden_size = 32
    config.batch_size = 16
    # Time steps of a training.
    config.num_steps = 80_000
    # Arms: for how many steps the network is fed its own forecasts, after `truth_steps` steps of
    # truth; 0 is teacher forcing.
    config.free_steps = (0, 10, 50, 200)
    config.truth_steps = 50
    config.estimators = ESTIMATORS
    # Steps of a segment: exactly for TBPTT, on average for ARTBP (polynomial law).
    config.mean_length = 20
    config.alpha = 4.0
    # Adam, at rates that fall linearly to zero; each arm gets the best on the validation windows.
    config.learning_rates = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    config.num_seeds = 4
    config.seed = 0
    # Forecasts: independent windows of `warm_up` true values and `max_horizon` steps.
    config.num_windows = 256
    config.warm_up = 100
    config.max_horizon = 200
    # A forecast counts as accurate while its normalised RMSE is below this.
    config.threshold = 0.5
    # Trainings at the same time, each in a thread of its own.
    config.num_threads = 2
    return config


def check_config(config: Any) -> None:
    """Raises ConfigError for a value that the study cannot run with."""
    for name in ("free_steps", "estimators", "learning_rates"):
        check_not_empty(config, name)
        if len(set(config[name])) < len(config[name]):
            raise ConfigError(f"{name} was given {tuple(config[name])}: name each once.")
    for name in config.estimators:
        if name not in ESTIMATORS:
            raise ConfigError(
                f"estimators: {name!r} is unknown; expected some of {', '.join(ESTIMATORS)}."
            )
    counts = ("hidden_size", "batch_size", "num_steps", "truth_steps", "num_seeds", "num_windows")
    check_at_least(config, 1, *counts, "warm_up", "max_horizon", "num_threads")
    check_at_least(config, 2, "mean_length")
    check_positive(config, "learning_rates", "threshold")
    check_alpha(config)
    check_seed("seed", config.seed)
    for steps in config.free_steps:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise ConfigError(f"free_steps: {steps!r} was given; expected an integer, 0 or more.")
