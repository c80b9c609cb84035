"""The fields of the experiment."""

from typing import Any

from experiments.common.errors import ConfigError
from experiments.common.fields import (
    Field,
    at_least,
    each_once,
    one_of,
    positive,
    seed,
    whole,
)
from experiments.long_memory.arms import arms
from experiments.long_memory.problems import LENGTH, PROBLEMS
from experiments.long_memory.training import num_steps
from experiments.ptb.data import penn_treebank

WINDOW = 16
ARMS, TASKS, TEXTS = tuple(arms(WINDOW)), tuple(PROBLEMS), ("generated", "ptb")
RATES = (1e-3, 3e-3, 1e-2, 3e-2)

FIELDS = {
    "tasks": Field(TASKS, "what is learned", one_of(*TASKS), each_once),
    "arms": Field(ARMS, "what is compared", one_of(*ARMS), each_once),
    "text": Field(TEXTS[0], "of the characters; Penn Treebank needs its files", one_of(*TEXTS)),
    "window": Field(WINDOW, f"K, steps of a window; divides {LENGTH}", whole(2)),
    "hidden_size": Field(32, "units of the cell", at_least(1)),
    "forget_bias": Field(4.0, "of the first params, where a cell has a forget gate"),
    "batch": Field(16, "rows side by side", at_least(1)),
    "num_sequences": Field(450, "of a training of TBPTT, in each row", at_least(1)),
    "num_points": Field(25, "of the losses in training", at_least(4)),
    "test_rows": Field(500, "sequences of a test", at_least(1)),
    "learning_rates": Field(RATES, "each arm gets the best on each task", positive),
    "critic_rate": Field(3e-3, "of Adam, for the critic", positive),
    "auxiliary_weight": Field(1.0, "of the auxiliary losses", positive),
    "num_tuning_runs": Field(2, "runs that choose the learning rate", at_least(1)),
    "num_seeds": Field(4, "runs that are reported", at_least(2, "a range needs at least 2")),
    "num_threads": Field(2, "arms at the same time", at_least(1)),
    "seed": Field(0, "of all keys and data", seed),
}


def check(config: Any) -> None:
    """Raises ConfigError for windows that do not fit into sequences, and trainings too short."""
    if LENGTH % config.window:
        raise ConfigError(f"window is {config.window}: expected a number that divides {LENGTH}.")
    if config.window == LENGTH and "target_propagation" in config.arms:
        raise ConfigError(
            f"window is {config.window}: expected less than {LENGTH} for target_propagation, which "
            "needs two windows in a sequence. Leave it out of arms."
        )
    if config.text == "ptb" and "characters" in config.tasks:
        penn_treebank()  # raises DataError for missing files before anything is trained
    table = arms(config.window)
    # The loss of a sequence comes at its end: a part of a training without one has no mean loss.
    sequences = {name: num_steps(table[name], config) // LENGTH for name in config.arms}
    fewest = min(sequences, key=lambda name: sequences[name])
    if config.num_points > sequences[fewest]:
        raise ConfigError(
            f"num_points is {config.num_points}: expected at most {sequences[fewest]}, the "
            f"sequences in a training of {fewest}. Raise num_sequences."
        )
