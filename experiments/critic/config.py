"""The fields of the experiment."""

from typing import Any

from experiments.common.errors import ConfigError
from experiments.common.fields import Field, at_least, between, each_once, one_of, positive, seed
from experiments.critic.systems import LONGEST, SYSTEMS
from experiments.critic.training import POINTS

FIELDS = {
    "systems": Field(tuple(SYSTEMS), "what is trained", one_of(*SYSTEMS), each_once),
    "hazard": Field(0.5, "c: at each edge a look-back stops with this probability", between(0, 1)),
    "num_steps": Field(30_000, "time steps of a training", at_least(1)),
    "learning_rates": Field((1e-3, 3e-3, 1e-2, 3e-2), "of Adam, for the model", positive),
    "critic_rate": Field(3e-3, "of Adam, for the critic", positive),
    "critic_units": Field(64, "of the critic's one layer", at_least(1)),
    "num_tuning_runs": Field(1, "runs that choose the learning rate", at_least(1)),
    "num_seeds": Field(5, "runs that are reported", at_least(2, "an interval needs at least 2")),
    "variance_draws": Field(200, "look-backs of each window for the variances", at_least(2)),
    "seed": Field(0, "of all keys and streams", seed),
}


def check(config: Any) -> None:
    """Raises ConfigError for a training too short for its curve and for the variances."""
    for name in config.systems:
        least = 2 * POINTS * SYSTEMS[name]().length
        if not least <= config.num_steps <= LONGEST:
            raise ConfigError(f"num_steps is {config.num_steps}: expected {least} to {LONGEST}.")
