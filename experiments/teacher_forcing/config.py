"""The fields of the experiment."""

from typing import Any

from experiments.common.arm_checks import check_as_named
from experiments.common.arms import parse
from experiments.common.errors import ConfigError
from experiments.common.fields import Field, arms, at_least, each_once, positive, seed, whole

ARMS = ("tbptt(20)", "artbp(20, alpha=4)")
FREE = "steps on its own forecasts, after `truth_steps` steps of truth; 0 is teacher forcing"
RATE = "of Adam, falling linearly to zero; each arm gets the best on the validation windows"

FIELDS = {
    "arms": Field(ARMS, "the estimators", arms(finite_variance=True)),
    "free_steps": Field((0, 10, 50, 200), FREE, each_once, whole(0)),
    "truth_steps": Field(50, "see free_steps", at_least(1)),
    "hidden_size": Field(32, "of the GRU", at_least(1)),
    "batch_size": Field(16, "rows", at_least(1)),
    "num_steps": Field(80_000, "time steps of a training", at_least(1)),
    "learning_rates": Field((1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2), RATE, positive),
    "num_tuning_runs": Field(2, "runs that choose the learning rate", at_least(1)),
    "num_seeds": Field(4, "runs that are reported", at_least(1)),
    "seed": Field(0, "of the first run", seed),
    "num_windows": Field(256, "of forecasts, to choose the rate and to test", at_least(1)),
    "warm_up": Field(100, "true values at the beginning of a window", at_least(1)),
    "max_horizon": Field(200, "steps of a forecast", at_least(1)),
    "threshold": Field(0.5, "a forecast with an error below this is accurate", positive),
    "num_threads": Field(2, "trainings at the same time", at_least(1)),
}


def check(config: Any) -> None:
    """Raises ConfigError for arms without a length, or with an optimiser of their own."""
    for arm in map(parse, config.arms):
        check_as_named("arms", arm)
        if arm.length is None:
            raise ConfigError(f"arms holds {arm.text}: expected one with a length.")
