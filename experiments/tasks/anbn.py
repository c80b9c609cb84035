"""aⁿbⁿ: predict the next symbol of strings whose two halves are equally long.

    input     #   a ... a (n)   b ... b (n)
    target    a   a ... a b     b ... b #

Each string is a sequence of 2 n + 1 steps, begun by the separator #, and every step counts. Its n
is drawn from a given law. While the a's come, one cannot know when they end; from the first b on
all is known to whoever counted.

Baselines, in nats per step; N is the mean of n:
  optimum      H(n) / (2 N + 1), with H the entropy of the law: whatever the order of guessing, a
               string costs −log P(n) in all to a predictor that knows the law and counts.
  memoryless   2 N h(1/N) / (2 N + 1), with h(p) = −p log p − (1 − p) log(1 − p): knows the present
               symbol only. N of the steps of a mean string show an a, of which one is followed
               by b; the same with b and #; after # comes a.

Source: Gers & Schmidhuber, "LSTM recurrent networks learn simple context-free and
context-sensitive languages" (2001).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from experiments.tasks.base import Piece, Task, blocks

A, B, SEPARATOR = 0, 1, 2


def anbn(probabilities: Sequence[float] = (0.1,) * 10) -> Task:
    """Strings aⁿbⁿ; see the module's docstring.

    Args:
      probabilities: P(n = 1), P(n = 2), ...; by default n is uniform on 1 to 10.

    Raises:
      ValueError: no probabilities, negative ones, or a sum that is not 1.
    """
    law = np.asarray(probabilities, np.float64)
    if law.ndim != 1 or not law.size or not (law >= 0).all() or abs(law.sum() - 1) > 1e-9:
        raise ValueError(
            f"probabilities = {probabilities!r}; expected P(n = 1), P(n = 2), ..., none negative, "
            "with sum 1. Divide them by their sum."
        )
    law = law / law.sum()  # the sampler accepts a smaller error than we do
    mean = float(np.dot(law, np.arange(1, law.size + 1)))
    entropy = sum(_surprise(float(p)) for p in law)
    binary_entropy = _surprise(1 / mean) + _surprise(1 - 1 / mean)
    return Task(
        name=f"anbn, mean n {mean:g}",
        input_size=3,
        symbols=True,
        output_size=3,
        loss="cross entropy",
        baselines={
            "optimum": entropy / (2 * mean + 1),
            "memoryless": 2 * mean * binary_entropy / (2 * mean + 1),
        },
        sequence_length=None,
        pieces=functools.partial(_pieces, law=law),
    )


def _surprise(probability: float) -> float:
    """−p log p, and 0 at 0."""
    return -probability * math.log(probability) if probability > 0 else 0.0


def _pieces(
    rng: np.random.Generator, shared: np.random.Generator, law: np.ndarray
) -> Iterator[Piece]:
    del shared
    cumulated = np.cumsum(law)
    cumulated[-1] = 1.0
    while True:
        n = 1 + int(np.searchsorted(cumulated, rng.random(), side="right"))
        for steps in blocks(2 * n + 1):
            symbol = np.where(steps <= n, np.int32(A), np.int32(B))
            xs = np.where(steps == 0, np.int32(SEPARATOR), symbol)
            following = np.where(steps < n, np.int32(A), np.int32(B))
            targets = np.where(steps == 2 * n, np.int32(SEPARATOR), following)
            yield Piece(xs, targets, np.ones(len(steps), bool), begins=bool(steps[0] == 0))
