"""Switching tables: a stream whose rule changes without notice, so that quick adaptation pays.

    x_{t+1} = π(x_t) with probability 1 − noise, else uniform on all symbols;  target_t = x_{t+1}

π is a permutation of the symbols, uniform among all of them and drawn anew before any step with
probability 1 / mean_duration. All rows of the batch follow the same π: what one row shows about it
helps the others, because rows share the weights. A gradient estimator that updates every few steps
learns a new table while one with a long window still waits. The stream never ends and has no reset,
and every step counts.

Baselines, in nats per step, with K = num_symbols:
  optimum      the entropy of one transition, −q log q − (K − 1) r log r with r = noise / K and
               q = 1 − noise + r, reached by an oracle that knows the present π. A learner has to
               find out π first, so it stays above, by what a table costs over mean_duration.
  stationary   ln K: does not adapt. π is uniform and drawn independently of x_t, so over all
               tables each symbol is followed by every symbol equally often.

In the manner of the switching experts of Herbster & Warmuth, "Tracking the best expert" (1998).
"""

import math
from collections.abc import Iterator

import numpy as np

from experiments.tasks.base import MAX_PIECE, Piece, Task, check_integer, check_number


def switching_tables(
    num_symbols: int = 8, mean_duration: float = 200.0, noise: float = 0.1
) -> Task:
    """Makes a Markov chain whose transition table switches.

    Args:
      num_symbols: K, 2 or more.
      mean_duration: mean number of steps for which a table stays, from 1 to 10¹². (The next table
        may be the same by chance, with probability 1 / K!.)
      noise: the probability of a step that ignores the table, from 0 to 1.
    """
    num_symbols = check_integer("num_symbols", num_symbols, 2)
    mean_duration = check_number("mean_duration", mean_duration, 1, 1e12, "a mean number of steps")
    noise = check_number("noise", noise, 0, 1, "a probability")
    other = noise / num_symbols
    chances = [1 - noise + other, *[other] * (num_symbols - 1)]
    optimum = -sum(chance * math.log(chance) for chance in chances if chance > 0)

    def pieces(rng: np.random.Generator, shared: np.random.Generator) -> Iterator[Piece]:
        symbol = int(rng.integers(num_symbols))
        table = shared.permutation(num_symbols).tolist()
        begins = True
        while True:
            switches = shared.random(MAX_PIECE) < 1 / mean_duration
            ignores = rng.random(MAX_PIECE) < noise
            anything = rng.integers(0, num_symbols, MAX_PIECE).tolist()
            path = [symbol]
            for step in range(MAX_PIECE):
                if switches[step]:
                    table = shared.permutation(num_symbols).tolist()
                symbol = anything[step] if ignores[step] else table[symbol]
                path.append(symbol)
            symbols = np.array(path, np.int32)
            yield Piece(symbols[:-1], symbols[1:], np.ones(MAX_PIECE, bool), begins)
            begins = False

    return Task(
        name=f"switching tables, {num_symbols} symbols, duration {mean_duration:g}",
        input_size=num_symbols,
        output_size=num_symbols,
        baselines={"optimum": optimum, "stationary": math.log(num_symbols)},
        pieces=pieces,
    )
