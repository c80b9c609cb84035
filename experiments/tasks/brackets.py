"""Distant brackets: predict which bracket closes, many steps after it was opened.

    input     open_k   filler ... filler (distance)   close_k   open_j   filler ...
    counts                              the last one

Each row is one endless text: pairs of brackets follow each other without a reset, so a chunk always
continues. The kind of a bracket is uniform on `num_kinds`, its distance uniform on a range of
integers, each filler uniform on `num_fillers` symbols, all independent. The loss counts at the last
filler, where the closing bracket comes next and its kind is the target: one step in distance + 2.

Symbols: open_k is k, close_k is num_kinds + k, and the fillers follow.

Baselines, in nats per counted step:
  optimum      0: the kind was seen `distance` steps ago.
  memoryless   ln num_kinds: has forgotten the opening bracket. Earlier pairs and the fillers say
               nothing about it.

In the manner of the latching problems of Bengio, Simard and Frasconi, "Learning long-term
dependencies with gradient descent is difficult" (1994), with the loss where a language model
would have to close a bracket.
"""

import math

import numpy as np

from experiments.tasks.base import At, Task, check_integer, check_range, sequences


def brackets(
    num_kinds: int = 4, min_distance: int = 50, max_distance: int = 50, num_fillers: int = 4
) -> Task:
    """Makes distant brackets of `num_kinds` kinds, 2 or more.

    Args:
      min_distance, max_distance: the number of fillers between two brackets is uniform on the
        integers from one to the other, both included; 1 or more.
      num_fillers: how many different fillers there are, 1 or more.
    """
    num_kinds = check_integer("num_kinds", num_kinds, 2)
    num_fillers = check_integer("num_fillers", num_fillers, 1)
    distances = check_range(1, min_distance=min_distance, max_distance=max_distance)

    def draw(rng: np.random.Generator) -> tuple[int, At]:
        kind = int(rng.integers(num_kinds))
        distance = int(rng.integers(*distances, endpoint=True))

        def at(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            xs = 2 * num_kinds + rng.integers(0, num_fillers, len(steps), dtype=np.int32)
            xs[steps == 0] = kind
            xs[steps == distance + 1] = num_kinds + kind
            return xs, np.full(len(steps), kind, np.int32), steps == distance

        return distance + 2, at

    return Task(
        name=f"brackets, {num_kinds} kinds, distance {min_distance} to {max_distance}",
        input_size=2 * num_kinds + num_fillers,
        output_size=num_kinds,
        baselines={"optimum": 0.0, "memoryless": math.log(num_kinds)},
        pieces=sequences(draw, endless=True),
    )
