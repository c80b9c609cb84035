"""The problems: digits pixel by pixel, and one of four items after 31 steps of distractors.

Each is a classification of sequences of equal length, with a loss at the last step only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import artbp
from experiments.memory import training as memory
from experiments.tasks.digits import NUM_LEVELS, NUM_PIXELS, images

EPISODE = 32  # steps of the memory task: the item comes first and is asked for at the last step

# [steps, sequences] and [sequences]
Sequences = tuple[np.ndarray, np.ndarray]


class Problem(NamedTuple):
    """One problem.

    Attributes:
      length: steps of a sequence.
      num_symbols, num_classes: of the inputs and of the targets.
      draw: `draw(rng_key, number)` gives sequences for training.
      test: `test(rng_key)` gives those that accuracies are measured on.
    """

    label: str
    length: int
    num_symbols: int
    num_classes: int
    draw: Callable[[jax.Array, int], Sequences]
    test: Callable[[jax.Array], Sequences]


def _digits(label: str, permuted: bool) -> Problem:
    def draw(rng_key: jax.Array, number: int) -> Sequences:
        pixels, labels = images("train", permuted)
        chosen = np.asarray(jax.random.randint(rng_key, (number,), 0, len(labels)))
        return pixels[:, chosen], labels[chosen]

    def test(rng_key: jax.Array) -> Sequences:
        return images("test", permuted)

    return Problem(label, NUM_PIXELS, NUM_LEVELS, 10, draw, test)


def _item() -> Problem:
    def draw(rng_key: jax.Array, number: int) -> Sequences:
        stream = memory.make_stream(rng_key, 1, EPISODE, number)
        return np.asarray(stream.xs), np.asarray(stream.targets[-1])

    def test(rng_key: jax.Array) -> Sequences:
        return draw(rng_key, 2048)

    label = f"memory, lag {EPISODE - 1}"
    return Problem(label, EPISODE, memory.NUM_SYMBOLS, memory.NUM_ITEMS, draw, test)


PROBLEMS = {
    "digits": _digits("digits, row by row", False),
    "permuted_digits": _digits("digits, permuted", True),
    "memory": _item(),
}


def side_by_side(problem: Problem, sequences: Sequences, batch: int) -> Sequences:
    """Returns inputs and targets [T, batch]: sequences in rows, and one after the other."""
    symbols, classes = sequences

    def in_rows(values: np.ndarray) -> np.ndarray:
        parts = values.reshape(problem.length, -1, batch)
        return np.ascontiguousarray(np.swapaxes(parts, 0, 1)).reshape(-1, batch)

    return in_rows(symbols), in_rows(np.broadcast_to(classes, symbols.shape))


def make_stream(problem: Problem, xs: Any, targets: Any) -> artbp.Stream:
    """Makes a stream of inputs and targets [T, batch], with a loss at the end of each sequence."""
    steps = np.arange(len(xs)) % problem.length
    return artbp.Stream(xs, targets, resets=steps == 0, mask=steps == problem.length - 1)
