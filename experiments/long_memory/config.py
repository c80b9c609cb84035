"""The fields of the experiment, and what each arm trains."""

from typing import Any, NamedTuple

from artbp.cells import ReferenceCell, lstm, sab
from experiments.common.errors import ConfigError
from experiments.common.fields import Field, at_least, each_once, one_of, positive, seed, whole
from experiments.common.figures import COLOURS
from experiments.tasks.base import Task
from experiments.tasks.copy_memory import copy_memory

ARMS = ("bptt", "tbptt", "sab")

FIELDS = {
    "arms": Field(ARMS, "what is compared", one_of(*ARMS), each_once),
    "lag": Field(60, "blank steps before the recall", at_least(1)),
    "truncation_length": Field(5, "time steps between boundaries, of TBPTT and SAB", whole(1)),
    "store_every": Field(5, "time steps between stored states, of SAB", whole(1)),
    "top_k": Field(5, "of the scores, the one that is subtracted, of SAB", whole(2)),
    "hidden_size": Field(64, "units of the LSTM", at_least(1)),
    "batch": Field(32, "sequences side by side", at_least(1)),
    "num_sequences": Field(2500, "of a training, in each row", at_least(10)),
    "num_points": Field(25, "of the curves", at_least(1)),
    "test_sequences": Field(20, "of a test, in each row", at_least(1)),
    "learning_rates": Field((1e-3, 3e-3, 1e-2), "of Adam; each arm gets the best", positive),
    "max_norm": Field(1.0, "of a gradient; larger ones are scaled down", positive),
    "num_tuning_runs": Field(1, "runs that choose the learning rate", at_least(1)),
    "num_seeds": Field(3, "runs that are reported", at_least(2, "a spread needs at least 2")),
    "seed": Field(0, "of all keys and data", seed),
}


def check(config: Any) -> None:
    """Raises ConfigError for curves with more points than there are sequences."""
    if config.num_points > config.num_sequences:
        raise ConfigError(
            f"num_points is {config.num_points}: expected at most num_sequences = "
            f"{config.num_sequences}."
        )


class Arm(NamedTuple):
    """One line of the table.

    Attributes:
        length: time steps of an update, whose gradient crosses no boundary between updates.
        output_size: of what the cell returns for the readout.
    """

    label: str
    color: str
    cell: ReferenceCell
    length: int
    output_size: int


def task_of(config: Any) -> Task:
    """Returns copy memory."""
    return copy_memory(config.lag)


def arm_of(name: str, config: Any) -> Arm:
    """Returns the arm of this name."""
    whole_sequence, units = task_of(config).sequence_length or 0, config.hidden_size
    length = config.truncation_length
    if name == "bptt":
        return Arm("full BPTT", COLOURS[6], lstm, whole_sequence, units)
    if name == "tbptt":
        return Arm(f"TBPTT {length}", COLOURS[3], lstm, length, units)
    memory_size = max(whole_sequence // config.store_every, config.top_k + 1)
    sizes = {"store_every": config.store_every, "top_k": config.top_k}
    cell = sab(memory_size, truncation_length=length, **sizes)
    return Arm(f"SAB {length}", COLOURS[0], cell, whole_sequence, 2 * units)
