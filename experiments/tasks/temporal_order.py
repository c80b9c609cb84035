"""Temporal order: a loss at the last step only, about the order of two symbols long before it.

    input     E  noise ... noise  X or Y  noise ... noise  X or Y  noise ... noise  B
    target                                                                          the class

The noise is uniform on {a, b, c, d}; E begins the sequence and B ends it. With L = `length`, a
sequence has L to L + L/10 steps, the first relevant symbol comes at step L/10 to L/5 and the second
at step L/2 to 6L/10 (counted from 0, integer division, both bounds included), each uniform and
independent. At L = 100 these are the numbers of the paper. The class is that of (X, X), (X, Y),
(Y, X), (Y, Y), as 0 to 3, each with probability 1/4.

Baselines, in nats per counted step:
  optimum      0: the class follows from the two symbols.
  memoryless   ln 4: sees the end of the sequence and has forgotten both symbols.
  one symbol   ln 2: remembers one of the two, as a network does that keeps only the nearer one.

Source: Hochreiter & Schmidhuber, "Long Short-Term Memory" (1997), experiment 6a.
"""

import math

import numpy as np

from experiments.tasks.base import At, Task, check_integer, sequences

NUM_NOISE = 4  # a, b, c, d are 0 to 3
X, Y, START, END = 4, 5, 6, 7


def temporal_order(length: int = 100) -> Task:
    """Makes the temporal order problem; `length` is that of the shortest sequence, 10 or more."""
    length = check_integer("length", length, 10)

    def draw(rng: np.random.Generator) -> tuple[int, At]:
        last = int(rng.integers(length, length + length // 10, endpoint=True)) - 1
        first_step = rng.integers(length // 10, length // 5, endpoint=True)
        second_step = rng.integers(length // 2, 6 * length // 10, endpoint=True)
        first, second = (int(bit) for bit in rng.integers(0, 2, 2))

        def at(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            xs = rng.integers(0, NUM_NOISE, len(steps), dtype=np.int32)
            xs[steps == 0] = START
            xs[steps == first_step] = X + first
            xs[steps == second_step] = X + second
            xs[steps == last] = END
            return xs, np.full(len(steps), 2 * first + second, np.int32), steps == last

        return last + 1, at

    return Task(
        name=f"temporal order, length {length}",
        input_size=8,
        output_size=4,
        baselines={"optimum": 0.0, "memoryless": math.log(4), "one symbol": math.log(2)},
        pieces=sequences(draw),
    )
