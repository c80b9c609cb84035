"""The fields of the experiment."""

from typing import Any

from experiments.common.errors import ConfigError
from experiments.common.fields import Field, at_least, each_once, one_of, positive, seed, whole
from experiments.lorenz.system import ARMS

RATES = tuple(float(f"{m}e{e}") for e in range(-10, -2) for m in (1, 3))

FIELDS = {
    "arms": Field(tuple(ARMS), "the estimators", one_of(*ARMS), each_once),
    "num_steps": Field(2000, "T, of a trajectory", at_least(2)),
    "dt": Field(0.005, "length of a step of Euler's method", positive),
    "log_a": Field(3.116, "first value of log a; the true one is 2.303"),
    "log_r": Field(3.7, "first value of log r; the true one is 3.332"),
    "truncation_length": Field(100, "W, steps of an unroll, which divide num_steps", at_least(1)),
    "scale": Field(0.04, "σ of the perturbations", positive),
    "num_particles": Field(200, "pairs of perturbations, or directions, of all groups", whole(1)),
    "num_updates": Field(3000, "of a training", at_least(1)),
    "num_points": Field(60, "evaluations in a training, which divide num_updates", at_least(1)),
    "learning_rates": Field(RATES, "of SGD; each arm gets the best on the tuning runs", positive),
    "num_tuning_runs": Field(2, "runs that choose the learning rate", at_least(1)),
    "num_seeds": Field(5, "runs that are reported", at_least(2, "an interval needs at least 2")),
    "variance_draws": Field(2000, "passes of one pair for the variances", at_least(20)),
    "seed": Field(0, "of all keys", seed),
}


def check(config: Any) -> None:
    """Raises ConfigError for numbers that do not divide."""
    for number, divisor in (("num_steps", "truncation_length"), ("num_updates", "num_points")):
        if config[number] % config[divisor]:
            expected = f"expected a divisor of {number} = {config[number]}"
            raise ConfigError(f"{divisor} is {config[divisor]}: {expected}.")
    groups = num_groups(config)
    if config.num_particles % groups:
        raise ConfigError(
            f"num_particles is {config.num_particles}: expected a multiple of {groups}, the number "
            "of unrolls of a trajectory, so that each has as many particles."
        )


def num_groups(config: Any) -> int:
    """Groups of particles: as many as a trajectory has unrolls, each at another one."""
    return config.num_steps // config.truncation_length
