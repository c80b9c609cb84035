"""The adding problem: the sum of two marked numbers, asked for at the end.

    input     (u_t, m_t): u_t uniform on [0, 1), m_t = 1 at two steps and 0 elsewhere
    target    at the last step, the sum of the two marked u_t

One mark is uniform on the first half of the sequence (the shorter one where the length is odd),
the other on the second half. Only the last step counts.

Baselines, squared error per counted step:
  optimum    0: the target is the float32 sum of two inputs.
  constant   1/6, by always predicting the mean, 1: the variance of a sum of two independent
             uniform numbers is 2/12.

Source: Hochreiter & Schmidhuber, "Long Short-Term Memory" (1997), experiment 4; this layout from
Arjovsky, Shah and Bengio (arXiv 1511.06464), section 4.2.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from experiments.tasks.base import Piece, Task, blocks, check_integer


def adding(length: int = 100) -> Task:
    """The adding problem; see the module's docstring.

    Args:
      length: steps per sequence, 2 or more.

    Raises:
      ValueError: a length that is no integer, or below 2.
    """
    length = check_integer("length", length, 2)
    return Task(
        name=f"adding, length {length}",
        input_size=2,
        symbols=False,
        output_size=1,
        loss="squared error",
        baselines={"optimum": 0.0, "constant": 1 / 6},
        sequence_length=length,
        pieces=functools.partial(_pieces, length=length),
    )


def _pieces(rng: np.random.Generator, shared: np.random.Generator, length: int) -> Iterator[Piece]:
    del shared
    half = length // 2
    while True:
        marked = [rng.integers(0, half), rng.integers(half, length)]
        total = np.float32(0)
        for steps in blocks(length):
            xs = np.zeros((len(steps), 2), np.float32)
            xs[:, 0] = rng.random(len(steps), np.float32)
            xs[:, 1] = np.isin(steps, marked)
            for number in xs[xs[:, 1] == 1, 0]:
                total += number
            mask = steps == length - 1
            targets = np.where(mask, total, np.float32(0))[:, None]
            yield Piece(xs, targets, mask, begins=bool(steps[0] == 0))
