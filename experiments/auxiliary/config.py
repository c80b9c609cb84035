"""Declares the fields of the experiment."""

from typing import Any

from experiments.auxiliary.problems import PROBLEMS
from experiments.common.errors import ConfigError
from experiments.common.fields import Field, at_least, each_once, one_of, positive, seed, whole

FIELDS = {
    "problems": Field(("memory",), "what is learned", one_of(*PROBLEMS), each_once),
    "short_window": Field(8, "steps of the short truncation", whole(1)),
    "window_length": Field(16, "inputs that the decoder predicts at an anchor", whole(1)),
    "auxiliary_truncation": Field(20, "steps before an anchor with its gradient", whole(1)),
    "weight": Field(1.0, "of the auxiliary losses; an anchor for each sequence", positive),
    "hidden_size": Field(32, "of the LSTM, and of the decoder's", whole(1)),
    "batch": Field(16, "rows", whole(1)),
    "num_sequences": Field(640, "of a row in a training; the last quarter is scored", at_least(4)),
    "learning_rates": Field((1e-3, 3e-3, 1e-2, 3e-2), "of Adam, for each arm", positive),
    "num_tuning_runs": Field(1, "runs that choose the learning rate", at_least(1)),
    "num_seeds": Field(4, "runs that are reported", at_least(2, "an interval needs at least 2")),
    "seed": Field(0, "of all keys and streams", seed),
}


def check(config: Any) -> None:
    """Raises ConfigError for windows that do not fit into a sequence."""
    for name in config.problems:
        length = PROBLEMS[name].length
        if length % config.short_window or config.short_window == length:
            raise ConfigError(
                f"short_window is {config.short_window}: expected a divisor of {length}, smaller "
                f"than it, for {name}."
            )
        if config.window_length >= length:
            raise ConfigError(
                f"window_length is {config.window_length}: expected less than {length}, the length "
                f"of a sequence of {name}."
            )
