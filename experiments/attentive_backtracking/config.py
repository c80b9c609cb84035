"""The fields of the experiment, and its arms: a cell, and where the gradient is cut."""

import dataclasses
from typing import Any

import jax

from artbp import cells
from artbp.cells import ReferenceCell
from experiments.common.errors import ConfigError
from experiments.common.fields import Field, at_least, each_once, one_of, positive, seed, whole
from experiments.common.figures import COLOURS


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is trained.

    Attributes:
        has_memory: whether the cell is `artbp.cells.sab`; otherwise it is an LSTM.
        is_cut: whether no gradient flows from one step to the next at every `truncation_length`.
        has_jumps: whether gradients flow from a step to the stored states that it reads.
    """

    label: str
    color: str
    has_memory: bool = False
    is_cut: bool = True
    has_jumps: bool = True


ARMS = {
    "sab": Arm("SAB {}", COLOURS[1], has_memory=True),
    "sab_without_jumps": Arm("SAB {} without jumps", COLOURS[3], has_memory=True, has_jumps=False),
    "tbptt": Arm("TBPTT {}, LSTM", COLOURS[4]),
    "bptt": Arm("full BPTT, LSTM", COLOURS[6], is_cut=False),
}

FIELDS = {
    "arms": Field(tuple(ARMS), "what is compared", one_of(*ARMS), each_once),
    "lag": Field(60, "blank steps between the symbols and their recall", at_least(1)),
    "num_recalled": Field(
        (2, 5), "symbols to be recalled, a part of the study each", whole(1), each_once
    ),
    "truncation_length": Field(5, "steps from one cut of the gradient to the next", at_least(1)),
    "store_every": Field(5, "steps from one stored state of SAB to the next", at_least(1)),
    "top_k": Field(4, "SAB reads at most top_k − 1 stored states", at_least(2)),
    "hidden_size": Field(64, "units of the cell", at_least(1)),
    "forget_bias": Field(1.0, "of the first params"),
    "batch": Field(32, "sequences of an update", at_least(1)),
    "num_updates": Field(5000, "of a training", at_least(1)),
    "num_points": Field(20, "of the accuracies in training; divides num_updates", at_least(1)),
    "learning_rates": Field((3e-3, 1e-2), "of Adam; each arm gets the best", positive),
    "clip_norm": Field(1.0, "gradients are clipped to this norm", positive),
    "test_sequences": Field(1000, "new ones", at_least(1)),
    "num_tuning_runs": Field(1, "runs that choose the learning rate", at_least(1)),
    "num_seeds": Field(3, "runs that are reported", at_least(2, "a range needs at least 2")),
    "num_threads": Field(2, "trainings at the same time", at_least(1)),
    "seed": Field(0, "of all keys", seed),
}


def memory_size(config: Any, num_recalled: int) -> int:
    """Returns how many states SAB stores in a sequence: all of them stay in the ring."""
    return (config.lag + 2 * num_recalled) // config.store_every


def make_cell(arm: Arm, config: Any, num_recalled: int) -> ReferenceCell:
    """Returns the cell of an arm; the cuts of an LSTM are made by the unroll."""
    if not arm.has_memory:
        return cells.lstm
    whole_sab = cells.sab(
        memory_size(config, num_recalled),
        truncation_length=config.truncation_length,
        store_every=config.store_every,
        top_k=config.top_k,
    )
    if arm.has_jumps:
        return whole_sab

    def without_jumps(params: Any, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        stored = jax.lax.stop_gradient((carry.memories, carry.scores))
        return whole_sab(params, carry._replace(memories=stored[0], scores=stored[1]), x)

    return ReferenceCell(without_jumps, whole_sab.init, whole_sab.initial_carry)


def check(config: Any) -> None:
    """Raises ConfigError for fields that do not go together."""
    if config.num_updates % config.num_points:
        raise ConfigError(
            f"num_points is {config.num_points}: expected a number that divides num_updates = "
            f"{config.num_updates}."
        )
    fewest = min(memory_size(config, number) for number in config.num_recalled)
    if fewest <= config.top_k:
        raise ConfigError(
            f"top_k is {config.top_k}: expected less than the {fewest} states that a sequence "
            f"stores, one every {config.store_every} steps. Lower top_k or store_every."
        )
