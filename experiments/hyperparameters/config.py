"""The configuration of the experiment: every field, and what it means."""

from typing import Any

import ml_collections

from experiments.common.config import check_at_least, check_positive, check_seed
from experiments.common.errors import ConfigError
from experiments.hyperparameters.problems import NAMES


def default_config() -> ml_collections.ConfigDict:
    """Both problems, with windows far shorter than the inner training."""
    config = ml_collections.ConfigDict()
    config.problems = NAMES
    # The quadratic: curvatures i^(−power), gradient noise of variance noise · curvature.
    config.quadratic_steps = 300
    config.num_directions = 50
    config.curvature_power = 1.0
    config.gradient_noise = 0.2
    # The network: inputs of deviations i^(−power), a teacher of the same shape whose weights are
    # `teacher_gain` times as large, and the inputs that the meta loss is taken on.
    config.network_steps = 200
    config.num_inputs = 10
    config.num_hidden = 10
    config.num_classes = 4
    config.input_power = 1.0
    config.teacher_gain = 3.0
    config.teacher_seed = 0
    config.minibatch_size = 8
    config.num_scored = 64
    # Methods: K of TBPTT; mean length and α of ARTBP; PES has K = the mean length.
    config.truncation_lengths = (4, 16, 64)
    config.mean_length = 16
    config.alphas = (4.0, 6.0)
    config.pes_pairs = 8
    config.pes_scale = 0.1  # of the perturbation of a log rate
    # The grid of rates at the start and at the end, and the inner trainings that score them.
    config.start_range = (0.03, 1.5)
    config.end_range = (0.0001, 1.5)
    config.grid_size = 14
    config.num_scoring = 8
    config.scoring_seed = 1000
    # (1) Rates along each line; inner trainings of the network, and draws of the boundaries on
    # each; draws on the quadratic, whose inner training is always the same.
    config.num_sign_points = 15
    config.num_sign_trainings = 16
    config.num_draws = 8
    config.num_exact_draws = 1024
    config.sign_seed = 2000
    # (2) Both rates at first; inner trainings; Adam's rates, of which each method is given the
    # best on the tuning seeds; the seeds after those are reported.
    config.first_rate = 0.05
    config.num_trainings = 60
    config.outer_rates = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    config.seed = 0
    config.num_tuning_seeds = 2
    config.num_seeds = 5
    # Outer trainings at the same time, each in a thread of its own.
    config.num_threads = 2
    return config


def check_config(config: Any) -> None:
    """Raises ConfigError for a value that the experiment cannot run with."""
    unknown = [name for name in config.problems if name not in NAMES]
    if unknown or not config.problems:
        raise ConfigError(
            f"problems was given {tuple(config.problems)}: expected some of {', '.join(NAMES)}."
        )
    rising = ("truncation_lengths", "alphas", "outer_rates", "start_range", "end_range")
    for name in rising:
        values = tuple(config[name])
        if not values or list(values) != sorted(set(values)) or not values[0] > 0:
            raise ConfigError(
                f"{name} was given {values}: expected numbers above 0 in a rising order, each once."
            )
    for name in ("start_range", "end_range"):
        if len(config[name]) != 2:
            raise ConfigError(f"{name} was given {tuple(config[name])}: expected two rates.")
    counts = ("num_directions", "num_inputs", "num_hidden", "minibatch_size", "num_scored")
    counts += ("pes_pairs", "num_scoring", "num_draws", "num_exact_draws", "num_trainings")
    check_at_least(config, 1, *counts, "num_tuning_seeds", "num_seeds", "num_threads")
    check_at_least(config, 2, "num_classes", "grid_size", "num_sign_points", "num_sign_trainings")
    check_at_least(config, 2, "mean_length")
    check_positive(config, "gradient_noise", "teacher_gain", "pes_scale", "first_rate")
    shortest = min(config.quadratic_steps, config.network_steps)
    for length in (*config.truncation_lengths, config.mean_length):
        if not isinstance(length, int) or length >= shortest:
            raise ConfigError(
                f"truncation_lengths or mean_length holds {length}: expected whole numbers below "
                f"quadratic_steps and network_steps, {shortest}: else nothing is truncated."
            )
    if not config.alphas[0] > 3:
        raise ConfigError(
            f"alphas was given {tuple(config.alphas)}: expected more than 3, so that the lengths "
            "have a finite variance; the paper uses 4 and 6."
        )
    for name in ("seed", "teacher_seed", "scoring_seed", "sign_seed"):
        check_seed(name, config[name])
