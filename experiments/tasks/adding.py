"""The adding problem: the network must give the sum of two marked numbers at the last step.

    input     (u_t, m_t): u_t uniform on [0, 1), m_t = 1 at two steps and 0 elsewhere
    target    at the last step, the sum of the two marked u_t

One mark is uniform on the first half of the sequence (the shorter one where the length is odd),
the other on the second half. The loss counts at the last step only.

Baselines, squared error per counted step:
  optimum    0: the target is the float32 sum of two inputs.
  constant   1/6, by always predicting the mean, 1: the variance of a sum of two independent
             uniform numbers is 2/12.

Source: Hochreiter & Schmidhuber, "Long Short-Term Memory" (1997), experiment 4; this layout from
Arjovsky, Shah and Bengio (arXiv 1511.06464), section 4.2.
"""

import numpy as np

from experiments.tasks.base import At, Task, check_integer, sequences


def adding(length: int = 100) -> Task:
    """Makes the adding problem with `length` steps per sequence, 2 or more."""
    length = check_integer("length", length, 2)
    half = length // 2

    def draw(rng: np.random.Generator) -> tuple[int, At]:
        marked = [rng.integers(0, half), rng.integers(half, length)]
        total = np.float32(0)

        def at(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            nonlocal total
            xs = np.zeros((len(steps), 2), np.float32)
            xs[:, 0] = rng.random(len(steps), np.float32)
            xs[:, 1] = np.isin(steps, marked)
            for number in xs[xs[:, 1] == 1, 0]:
                total += number
            return xs, np.full((len(steps), 1), total), steps == length - 1

        return length, at

    return Task(
        name=f"adding, length {length}",
        input_size=2,
        output_size=1,
        symbols=False,
        baselines={"optimum": 0.0, "constant": 1 / 6},
        sequence_length=length,
        pieces=sequences(draw),
    )
