"""Copy memory: recall ten symbols after a blank period, of fixed or variable lag.

    step      0 ... 9       10 ... lag + 8   lag + 9     lag + 10 ... lag + 19
    input     ten symbols   blank            delimiter   blank
    target    blank         blank            blank       the ten symbols, in order

A sequence has lag + 20 steps, and every step counts. (`num_recalled` is the number of symbols, ten
by default; for n of them, read n for 10, and 2 n for 20.) The symbols are uniform on eight and
independent, so what is to be recalled is 10 ln 8 nats; a symbol comes back lag + 10 steps after it
was seen. With a variable lag, each sequence draws its own: only the delimiter says when to recall.

Baselines, in nats per step:
  optimum      0: the targets follow from the inputs.
  memoryless   10 ln 8 / (mean lag + 20): knows which step of the layout it is at, and none of the
               symbols. It is sure of each blank and guesses among eight at the ten last steps.
               (A stream's mean is that of a sequence's sum over that of its length.)

Source: Hochreiter & Schmidhuber, "Long Short-Term Memory" (1997); this layout from Arjovsky, Shah
and Bengio, "Unitary Evolution Recurrent Neural Networks" (arXiv 1511.06464), section 4.1.
"""

import math

import numpy as np

from experiments.tasks.base import At, Task, check_integer, check_range, sequences

NUM_SYMBOLS = 8
NUM_RECALLED = 10
BLANK = NUM_SYMBOLS
DELIMITER = NUM_SYMBOLS + 1


def copy_memory(lag: int = 100, num_recalled: int = NUM_RECALLED) -> Task:
    """Makes copy memory.

    Args:
        lag: steps from the last symbol to the delimiter, 1 or more.
        num_recalled: symbols to be recalled, 1 or more.
    """
    lag, number = check_integer("lag", lag, 1), check_integer("num_recalled", num_recalled, 1)
    words = "" if number == NUM_RECALLED else f", {number} symbols"
    return _task(f"copy memory, lag {lag}{words}", lag, lag, number)


def copy_memory_variable_lag(min_lag: int = 50, max_lag: int = 150) -> Task:
    """Draws the lag of each sequence, uniform on the integers from min_lag to max_lag."""
    min_lag, max_lag = check_range(1, min_lag=min_lag, max_lag=max_lag)
    return _task(f"copy memory, lag {min_lag} to {max_lag}", min_lag, max_lag)


def _task(name: str, min_lag: int, max_lag: int, num_recalled: int = NUM_RECALLED) -> Task:
    def draw(rng: np.random.Generator) -> tuple[int, At]:
        symbols = rng.integers(0, NUM_SYMBOLS, num_recalled, dtype=np.int32)
        recall = num_recalled + int(rng.integers(min_lag, max_lag, endpoint=True))

        def at(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
            shown = symbols.take(steps, mode="clip")
            recalled = symbols.take(steps - recall, mode="clip")
            xs = np.where(steps < num_recalled, shown, np.int32(BLANK))
            xs[steps == recall - 1] = DELIMITER
            return xs, np.where(steps >= recall, recalled, np.int32(BLANK)), None

        return recall + num_recalled, at

    memoryless = num_recalled * math.log(NUM_SYMBOLS) / ((min_lag + max_lag) / 2 + 2 * num_recalled)
    return Task(
        name=name,
        input_size=NUM_SYMBOLS + 2,
        output_size=NUM_SYMBOLS + 1,  # the delimiter is never a target
        baselines={"optimum": 0.0, "memoryless": memoryless},
        sequence_length=min_lag + 2 * num_recalled if min_lag == max_lag else None,
        pieces=sequences(draw),
    )
