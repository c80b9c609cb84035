"""What became of a run, from where θ started and where it ended; the table of outcomes.

    converged         |θ − θ*| < tolerance
    not yet           nearer to θ* than at the start, but not converged: more steps, larger rate
    wrong direction   farther from θ* than at the start: the gradient has the wrong sign
    diverged          not finite, or more than 100 times as far from θ* as at the start

Only the distance at the end decides. A gradient of the right sign with too large a rate ends as
"diverged", or it has `recovered`: this system is linear, so such a run comes back once the rate has
fallen. A nonlinear model would hardly come back.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.common.report import Column, Row, quartiles
from experiments.influence_balancing import system
from experiments.influence_balancing.training import Run, learning_rates

OUTCOMES = ("converged", "not yet", "wrong direction", "diverged")
CONVERGED, NOT_YET, WRONG_DIRECTION, DIVERGED = OUTCOMES
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
    """Which runs, [R], converged after |θ| had been as far off as in those that diverged."""
    far = largest_theta - abs(optimum) > DIVERGED_FACTOR * abs(theta_0 - optimum)
    return (labels == CONVERGED) & far


def shares(outcomes: np.ndarray) -> dict[str, float]:
    """Share of the runs per outcome, every outcome present, in the order of `OUTCOMES`."""
    return {name: float((outcomes == name).mean()) for name in OUTCOMES}


def most_frequent(share: Mapping[str, float]) -> str:
    """The outcome of most runs; of two with the same share, the first in `OUTCOMES`."""
    return max(OUTCOMES, key=share.__getitem__)


def main_failure(share: Mapping[str, float]) -> str | None:
    """The most frequent outcome besides "converged", or None if all runs converged."""
    failure = max(OUTCOMES[1:], key=share.__getitem__)
    return failure if share[failure] > 0 else None


def rows_of(config: Any, run: Run) -> list[Row]:
    """For each schedule and rate: the outcomes of the keys, and how far from θ* they ended."""
    eta_0, schedules = learning_rates(config)
    settings, rows = list(itertools.product(schedules, eta_0)), []
    place = {"theta_0": config.theta_0, "optimum": system.OPTIMAL_THETA}
    thetas = np.stack([run.final_theta, run.largest_theta]).reshape(2, len(settings), -1)
    for (schedule, rate), theta, largest_theta in zip(settings, *thetas, strict=True):
        labels = classify(theta, tolerance=config.tolerance, **place)
        share = shares(labels)
        lower, median, upper = quartiles(np.abs(theta - system.OPTIMAL_THETA))
        row = run.row(config) | {"eta_0": rate, "schedule": schedule, "num_keys": len(theta)}
        row |= {"outcome": most_frequent(share), "share": share}
        row["share_recovered"] = float(recovered(labels, largest_theta, **place).mean())
        row |= {"distance_lower_quartile": lower, "distance_median": median}
        rows.append(row | {"distance_upper_quartile": upper})
    return rows


def _distance(row: Row) -> str:
    spread = " [{distance_lower_quartile:.1e}, {distance_upper_quartile:.1e}]"
    return ("{distance_median:.1e}" + spread * (row["num_keys"] > 1)).format_map(row)


COLUMNS: list[Column] = [
    ("method", "{label}"),
    ("η₀", "{eta_0:g}"),
    ("schedule, t in", "{schedule}"),
    ("keys", "{num_keys}"),
    *((name, f"{{share[{name}]:.1%}}") for name in OUTCOMES),
    ("converged after running off", "{share_recovered:.1%}"),
    ("final \\|θ − θ\\*\\|, median [quartiles]", _distance),
    ("time steps per second, all keys", "{steps_per_second:,.0f}"),
]

NOTE = (
    "Converged after running off: keys, counted as converged too, that had been more than "
    f"{DIVERGED_FACTOR:.0f} times as far from θ\\* as at the start before they came back."
)
