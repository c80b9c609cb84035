"""aⁿbⁿ: predict the next symbol of strings whose two halves are equally long.

    input     #   a ... a (n)   b ... b (n)
    target    a   a ... a b     b ... b #

Each string is a sequence of 2 n + 1 steps that begins with the separator #, and every step counts.
Its n is drawn from a given law. Nobody can know when the a's end. From the first b on, a network
that has counted the a's knows the rest.

Baselines, in nats per step; N is the mean of n:
  optimum      H(n) / (2 N + 1), with H the entropy of the law: whatever the order of guessing, a
               string costs −log P(n) in all to a predictor that knows the law and counts.
  memoryless   2 N h(1/N) / (2 N + 1), with h(p) = −p log p − (1 − p) log(1 − p): knows the present
               symbol only. N of the steps of a mean string show an a, of which one is followed
               by b; the same with b and #; after # comes a.

Source: Gers & Schmidhuber, "LSTM recurrent networks learn simple context-free and
context-sensitive languages" (2001).
"""

import math
from collections.abc import Sequence

import numpy as np

from experiments.tasks.base import At, Task, sequences

A, B, SEPARATOR = 0, 1, 2


def anbn(probabilities: Sequence[float] = (0.1,) * 10) -> Task:
    """Makes strings aⁿbⁿ with the given P(n = 1), P(n = 2), ...; the default is uniform."""
    law = np.asarray(probabilities, np.float64)
    if law.ndim != 1 or not law.size or not (law >= 0).all() or abs(law.sum() - 1) > 1e-9:
        expected = "P(n = 1), P(n = 2), ..., none negative, with sum 1. Divide them by their sum"
        raise ValueError(f"probabilities = {probabilities!r}; expected {expected}.")
    law = law / law.sum()
    mean = float(np.dot(law, np.arange(1, law.size + 1)))
    optimum = sum(_surprise(float(p)) for p in law) / (2 * mean + 1)
    memoryless = 2 * mean * (_surprise(1 / mean) + _surprise(1 - 1 / mean)) / (2 * mean + 1)
    cumulated = np.cumsum(law)
    cumulated[-1] = 1.0

    def draw(rng: np.random.Generator) -> tuple[int, At]:
        n = 1 + int(np.searchsorted(cumulated, rng.random(), side="right"))

        def at(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
            xs = np.select([steps == 0, steps <= n], [SEPARATOR, A], B).astype(np.int32)
            targets = np.select([steps == 2 * n, steps < n], [SEPARATOR, A], B).astype(np.int32)
            return xs, targets, None

        return 2 * n + 1, at

    return Task(
        name=f"anbn, mean n {mean:g}",
        input_size=3,
        output_size=3,
        baselines={"optimum": optimum, "memoryless": memoryless},
        pieces=sequences(draw),
    )


def _surprise(probability: float) -> float:
    """−p log p, and 0 at 0."""
    return -probability * math.log(probability) if probability > 0 else 0.0
