"""The configuration of the experiment: every field, and what it means."""

from typing import Any

import ml_collections

from experiments.common.config import check_at_least, check_not_empty, check_positive
from experiments.common.errors import ConfigError
from experiments.influence_balancing import methods, predictions
from experiments.influence_balancing.training import SCHEDULES

STUDIES = ("curves", "rates", "settling")
LOSS_AT = ("every step", "unroll end")
GRID_SCHEDULES = ("time steps", "updates")


def default_config() -> ml_collections.ConfigDict:
    """The main job: the paper's comparison at one learning rate."""
    config = ml_collections.ConfigDict()
    # "curves", "rates" or "settling": see the modules of these names.
    config.study = "curves"
    # Names as in `methods`; figures and tables keep their order.
    config.methods = (
        "artbp-16-alpha-4",
        "artbp-16-alpha-6",
        "artbp-16-geometric",
        "tbptt-200",
        "tbptt-100",
        "tbptt-10",
        "uncompensated-16-alpha-4",
    )
    # Independent runs of a method that has randomness.
    config.num_keys = 128
    config.num_steps = 100_000
    config.seed = 0
    config.theta_0 = 0.5
    # The rate of an update is eta_0 / sqrt(1 + t): with "time steps", t counts the time steps
    # seen, as in the paper; with "updates" it counts updates. "constant": eta_0.
    config.eta_0 = 1e-3
    config.schedule = "time steps"
    # A run has converged when |θ − θ*| is smaller than this in the end; less than |θ_0 − θ*|.
    config.tolerance = 1e-3
    # "every step": the loss is summed over all time steps. "unroll end": it is taken once, at the
    # last of every K steps, K the (mean) segment length of the method, an integer; a run then
    # has `num_unrolls` times K steps, and `num_steps` is not used.
    config.loss_at = "every step"
    config.num_unrolls = 3000
    # Standard deviation of the noise on the drive, as a multiple of it ("settling" only).
    config.drive_noise = 0.0
    # The grid of "rates", which takes the place of `eta_0` and `schedule` there.
    config.grid_eta_0 = (1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2)
    config.grid_schedules = GRID_SCHEDULES
    # Points of a curve, evenly spaced in the logarithm of time.
    config.num_bins = 200
    # Methods trained at the same time, each in a thread of its own.
    config.num_threads = 2
    return config


def check_config(config: Any) -> None:
    """Raises ConfigError for a value that no study can run with."""
    _one_of("study", config.study, STUDIES)
    _one_of("loss_at", config.loss_at, LOSS_AT)
    _one_of("schedule", config.schedule, tuple(SCHEDULES))
    check_not_empty(config, "methods", "grid_schedules")
    for schedule in config.grid_schedules:
        _one_of("grid_schedules", schedule, GRID_SCHEDULES)
    counts = ("num_keys", "num_steps", "num_unrolls", "num_bins", "num_threads")
    check_at_least(config, 1, *counts)
    check_positive(config, "eta_0", "grid_eta_0")
    optimum = predictions.optimum(config.drive_noise)
    start = abs(config.theta_0 - optimum)
    if not 0 < config.tolerance < start:
        raise ConfigError(
            f"tolerance was given {config.tolerance}: expected more than 0 and less than "
            f"|theta_0 − θ*| = {start:.6g}, where a run starts (θ* = {optimum:.6g})."
        )
    if (config.drive_noise > 0) != (config.study == "settling"):
        raise ConfigError(
            f"drive_noise={config.drive_noise} was given for the study {config.study!r}: it is "
            "for 'settling', which needs drive_noise > 0; the other studies need 0."
        )
    if config.loss_at == "unroll end" and config.study != "curves":
        raise ConfigError(f"loss_at='unroll end' works with study='curves', not {config.study!r}.")
    for name in config.methods:
        try:
            method = methods.parse(name)
        except ValueError as error:
            raise ConfigError(f"methods: {error}") from error
        if config.loss_at == "unroll end" and method.unroll_length % 1 != 0:
            raise ConfigError(
                f"methods: {name!r} has a mean length of {method.unroll_length:g}; "
                "loss_at='unroll end' takes a loss every so many steps: expected an integer."
            )


def _one_of(field: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{field} was given {value!r}: expected one of {', '.join(known)}.")
