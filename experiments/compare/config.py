"""The configuration of the comparison: every field, and what it means."""

from typing import Any

import ml_collections

from experiments.common.config import check_at_least, check_positive
from experiments.common.errors import ConfigError
from experiments.compare.contenders import contenders
from experiments.compare.problems import problems


def default_config() -> ml_collections.ConfigDict:
    """The run that `experiments/results/compare` holds."""
    config = ml_collections.ConfigDict()
    # Steps between updates, on average; the mean length of the laws.
    config.mean_length = 16
    # Every training may evaluate the cell as often as TBPTT does in so many time steps.
    config.num_steps = 30_000
    # As above, for the task to learn.
    config.num_learning_steps = 30_000
    # Names of `contenders` and `problems` to leave it at; none means all of them.
    config.estimators = ()
    config.problems = ()
    # Independent trainings where there is randomness.
    config.num_seeds = 5
    # Learning rates to choose from: SGD with rate/√(1 + t), t in time steps; and Adam.
    config.sgd_rates = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    config.adam_rates = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    # The task to learn is "brackets" at this distance; its model.
    config.distance = 20
    config.hidden_size = 16
    config.batch = 8
    # The last part of a training, over which the loss of the task is averaged.
    config.scored_part = 0.2
    # Trainings at the same time, each in a thread of its own.
    config.num_threads = 2
    return config


def check_config(config: Any) -> None:
    """Raises ConfigError for a value that the comparison cannot run with."""
    check_at_least(config, 2, "mean_length")
    counts = ("num_steps", "num_learning_steps", "num_seeds", "distance", "hidden_size", "batch")
    check_at_least(config, 1, *counts, "num_threads")
    check_positive(config, "sgd_rates", "adam_rates")
    _known("estimators", config.estimators, [one.name for one in contenders(config.mean_length)])
    _known("problems", config.problems, [one.name for one in problems(config)])
    if not 0 < config.scored_part <= 1:
        raise ConfigError(
            f"scored_part was given {config.scored_part}: expected more than 0, at most 1."
        )


def _known(field: str, names: Any, known: list[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{field}: {name!r} is unknown; expected of {', '.join(known)}.")
