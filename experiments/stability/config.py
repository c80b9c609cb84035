"""The configuration of the experiment: every field, and what it means."""

from typing import Any

import ml_collections

from experiments.common.config import check_alpha, check_at_least, check_positive, check_seed
from experiments.common.errors import ConfigError


def default_config() -> ml_collections.ConfigDict:
    """Five spectral radii, from a network that forgets to one that explodes."""
    config = ml_collections.ConfigDict()
    config.spectral_radii = (0.8, 1.0, 1.2, 1.5, 2.0)
    config.hidden_size = 32
    # Rows of the Mackey-Glass series, forecast `horizon` steps ahead, in sequences that begin
    # with an empty state.
    config.num_rows = 8
    config.sequence_length = 200
    config.horizon = 6
    # Steps of a segment: exactly for TBPTT, on average for ARTBP.
    config.mean_length = 20
    config.alpha = 4.0
    config.seed = 0
    # (i) Draws of weights, data and boundaries for the quantiles of a gradient norm.
    config.num_norm_draws = 256
    # (ii) Trainings: sequences, rates of SGD, seeds, and the two bounds of clipping.
    config.num_sequences = 100
    config.learning_rates = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    config.num_seeds = 5
    config.clip_norm = 1.0
    config.clip_value = 0.1
    # (iii) A clipped run (by `clip_norm`): its rate, updates, and the points of a step at which
    # the gradient is taken.
    config.bound_learning_rate = 0.1
    config.bound_updates = 300
    config.bound_points = 9
    # (iv) Bounds on the norm, and where their effect is measured.
    config.clip_bounds = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    config.clipping_radius = 1.2
    config.clipping_learning_rates = (0.01, 0.1)
    # Draws of the boundaries, for each of `num_seeds` draws of weights and sequence.
    config.num_bias_keys = 400
    # Panel of the trainings: which spectral radius it shows.
    config.figure_radius = 1.5
    # Trainings at the same time, each in a thread of its own.
    config.num_threads = 2
    return config


def check_config(config: Any) -> None:
    """Raises ConfigError for a value that the experiment cannot run with."""
    rising = ("spectral_radii", "learning_rates", "clip_bounds", "clipping_learning_rates")
    for name in rising:
        check_positive(config, name)
        values = config[name]
        if list(values) != sorted(set(values)):
            raise ConfigError(f"{name} was given {values}: expected a rising order, each once.")
    check_positive(config, "clip_norm", "clip_value", "bound_learning_rate", "clipping_radius")
    counts = ("hidden_size", "num_rows", "sequence_length", "horizon", "num_sequences")
    counts += ("num_norm_draws", "num_seeds", "bound_updates", "num_bias_keys", "num_threads")
    check_at_least(config, 1, *counts)
    if config.num_sequences < 2:
        raise ConfigError("num_sequences was given 1: expected at least 2, the last to be scored.")
    if config.bound_points < 2:
        raise ConfigError(
            f"bound_points was given {config.bound_points}: expected at least 2, both ends."
        )
    if not 2 <= config.mean_length <= config.sequence_length:
        raise ConfigError(
            f"mean_length was given {config.mean_length}: expected from 2 to sequence_length = "
            f"{config.sequence_length}."
        )
    if config.sequence_length % config.mean_length:
        raise ConfigError(
            f"mean_length was given {config.mean_length}: expected a divisor of sequence_length = "
            f"{config.sequence_length}, so that TBPTT cuts every sequence at the same steps."
        )
    check_alpha(config)
    if config.figure_radius not in config.spectral_radii:
        raise ConfigError(
            f"figure_radius was given {config.figure_radius}: expected one of spectral_radii = "
            f"{tuple(config.spectral_radii)}."
        )
    check_seed("seed", config.seed)
