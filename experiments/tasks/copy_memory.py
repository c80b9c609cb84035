"""Copy memory: recall ten symbols after a blank period, of fixed or variable lag.

    step      0 ... 9       10 ... lag + 8   lag + 9     lag + 10 ... lag + 19
    input     ten symbols   blank            delimiter   blank
    target    blank         blank            blank       the ten symbols, in order

A sequence has lag + 20 steps, and every step counts. The symbols are uniform on eight and
independent, so what is to be recalled is 10 ln 8 nats; a symbol comes back lag + 10 steps after it
was seen. With a variable lag, each sequence draws its own: the delimiter alone says when to recall.

Baselines, in nats per step:
  optimum      0: the targets follow from the inputs.
  memoryless   10 ln 8 / (mean lag + 20): knows which step of the layout it is at, and none of the
               symbols. It is sure of each blank and guesses among eight at the ten last steps.
               (A stream's mean is that of a sequence's sum over that of its length.)

Source: Hochreiter & Schmidhuber, "Long Short-Term Memory" (1997); this layout from Arjovsky, Shah
and Bengio, "Unitary Evolution Recurrent Neural Networks" (arXiv 1511.06464), section 4.1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np

from experiments.tasks.base import Piece, Task, blocks, check_integer, check_range

NUM_SYMBOLS = 8
NUM_RECALLED = 10
BLANK = NUM_SYMBOLS
DELIMITER = NUM_SYMBOLS + 1


def copy_memory(lag: int = 100) -> Task:
    """Copy memory with the same lag in every sequence; see the module's docstring.

    Args:
      lag: steps from the last symbol seen to the delimiter, 1 or more.

    Raises:
      ValueError: a lag that is no integer, or below 1.
    """
    lag = check_integer("lag", lag, 1)
    return _task(f"copy memory, lag {lag}", lag, lag)


def copy_memory_variable_lag(min_lag: int = 50, max_lag: int = 150) -> Task:
    """Copy memory with a lag drawn for each sequence; see the module's docstring.

    Args:
      min_lag, max_lag: the lag is uniform on the integers from one to the other, both included.

    Raises:
      ValueError: bounds that are no integers, below 1, or in the wrong order.
    """
    min_lag, max_lag = check_range(("min_lag", "max_lag"), min_lag, max_lag, 1)
    return _task(f"copy memory, lag {min_lag} to {max_lag}", min_lag, max_lag)


def _task(name: str, min_lag: int, max_lag: int) -> Task:
    mean_length = (min_lag + max_lag) / 2 + 2 * NUM_RECALLED
    return Task(
        name=name,
        input_size=NUM_SYMBOLS + 2,
        symbols=True,
        output_size=NUM_SYMBOLS + 1,  # the delimiter is never a target
        loss="cross entropy",
        baselines={
            "optimum": 0.0,
            "memoryless": NUM_RECALLED * math.log(NUM_SYMBOLS) / mean_length,
        },
        sequence_length=min_lag + 2 * NUM_RECALLED if min_lag == max_lag else None,
        pieces=functools.partial(_pieces, min_lag=min_lag, max_lag=max_lag),
    )


def _pieces(
    rng: np.random.Generator, shared: np.random.Generator, min_lag: int, max_lag: int
) -> Iterator[Piece]:
    del shared
    while True:
        symbols = rng.integers(0, NUM_SYMBOLS, NUM_RECALLED, dtype=np.int32)
        lag = int(rng.integers(min_lag, max_lag, endpoint=True))
        recall = NUM_RECALLED + lag
        for steps in blocks(recall + NUM_RECALLED):
            shown = symbols.take(steps, mode="clip")
            recalled = symbols.take(steps - recall, mode="clip")
            xs = np.where(steps < NUM_RECALLED, shown, np.int32(BLANK))
            xs[steps == recall - 1] = DELIMITER
            targets = np.where(steps >= recall, recalled, np.int32(BLANK))
            yield Piece(xs, targets, np.ones(len(steps), bool), begins=bool(steps[0] == 0))
