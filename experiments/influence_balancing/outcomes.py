"""What became of a run, from where θ started and where it ended.

Four outcomes, kept apart because they ask for different remedies:

    converged         |θ − θ*| < tolerance
    not yet           nearer to θ* than at the start, but not converged: more steps, larger rate
    wrong direction   farther from θ* than at the start: the gradient has the wrong sign
    diverged          not finite, or more than 100 times as far from θ* as at the start

The distance at the end decides alone. So "wrong direction" and "diverged" may be the same illness
at two speeds: a wrong sign drifts away exponentially, and the rate says how far it gets. A right
sign with too large a rate also ends as "diverged".

Too large a rate at first need not be the end of a run: the system is linear, so a run with the
right sign that has blown up comes back once the rate has fallen. `recovered` tells these apart; in
a nonlinear model they would hardly have come back.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np

CONVERGED = "converged"
NOT_YET = "not yet"
WRONG_DIRECTION = "wrong direction"
DIVERGED = "diverged"
OUTCOMES = (CONVERGED, NOT_YET, WRONG_DIRECTION, DIVERGED)

DIVERGED_FACTOR = 100.0


def classify(theta: np.ndarray, *, theta_0: float, optimum: float, tolerance: float) -> np.ndarray:
    """The outcome of each run.

    Args:
        theta: where each run ended, [R], non-finite values allowed.
        theta_0: where all of them started.
        optimum: θ*.
        tolerance: a run within this distance of θ* has converged.

    Returns:
        [R] array of str, each one of `OUTCOMES`.
    """
    theta = np.asarray(theta, np.float64)
    start = abs(theta_0 - optimum)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(theta - optimum)
        outcome = np.where(distance > start, WRONG_DIRECTION, NOT_YET)
        outcome[distance < tolerance] = CONVERGED
        outcome[~(distance <= DIVERGED_FACTOR * start)] = DIVERGED  # `~(<=)` is true for NaN too
    return outcome


def recovered(
    labels: np.ndarray, largest_theta: np.ndarray, *, theta_0: float, optimum: float
) -> np.ndarray:
    """Which of the converged runs had been as far off on the way as those called diverged.

    Args:
        labels: from `classify`, [R].
        largest_theta: the largest |θ| on the way, [R].
        theta_0, optimum: as for `classify`.

    Returns:
        [R], bool.
    """
    far = largest_theta - abs(optimum) > DIVERGED_FACTOR * abs(theta_0 - optimum)
    return (labels == CONVERGED) & far


def shares(outcomes: np.ndarray) -> dict[str, float]:
    """Share of the runs per outcome, every outcome present, in the order of `OUTCOMES`."""
    counts = Counter(outcomes.tolist())
    return {name: counts[name] / len(outcomes) for name in OUTCOMES}


def most_frequent(share: Mapping[str, float]) -> str:
    """The outcome of most runs; of two with the same share, the first in `OUTCOMES`."""
    return max(OUTCOMES, key=share.__getitem__)


def main_failure(share: Mapping[str, float]) -> str | None:
    """The most frequent outcome besides "converged", or None if all runs converged."""
    failures = [name for name in OUTCOMES[1:] if share[name] > 0]
    return max(failures, key=share.__getitem__, default=None)
