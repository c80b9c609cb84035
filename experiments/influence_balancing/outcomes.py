"""What became of a run, from where θ started and where it ended.

    converged         |θ − θ*| < tolerance
    not yet           nearer to θ* than at the start, but not converged: more steps, larger rate
    wrong direction   farther from θ* than at the start: the gradient has the wrong sign
    diverged          not finite, or more than 100 times as far from θ* as at the start

Only the distance at the end decides. A gradient of the wrong sign ends as "wrong direction" or as
"diverged", depending on the rate. A gradient of the right sign with too large a rate also ends as
"diverged", or `recovered`: this system is linear, so such a run comes back once the rate has
fallen. A nonlinear model would hardly come back.
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
    """The outcome of each run, [R], from where it ended; non-finite values allowed."""
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
    """Which of the runs, [R], converged after they had been as far off as those that diverged.

    `largest_theta` [R] is the largest |θ| on the way.
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
