"""The rows and columns of the studies "curves" and "rates"."""

import itertools
from typing import Any

import numpy as np

from experiments.common.report import Column, Row, quartiles
from experiments.influence_balancing import outcomes, system
from experiments.influence_balancing.training import Run, learning_rates


def rows_of(config: Any, run: Run) -> list[Row]:
    """For each schedule and rate: the outcomes of the keys, and how far from θ* they ended."""
    eta_0, schedules = learning_rates(config)
    settings = list(itertools.product(schedules, eta_0))
    from_where = {"theta_0": config.theta_0, "optimum": system.OPTIMAL_THETA}
    rows = []
    for (schedule, rate), theta, largest in zip(
        settings,
        np.split(run.final_theta, len(settings)),
        np.split(run.largest_theta, len(settings)),
        strict=True,
    ):
        labels = outcomes.classify(theta, tolerance=config.tolerance, **from_where)
        share = outcomes.shares(labels)
        lower, median, upper = quartiles(np.abs(theta - system.OPTIMAL_THETA))
        rows.append(
            {
                "arm": run.arm.text,
                "label": run.arm.label,
                "eta_0": rate,
                "schedule": schedule,
                "loss_at": config.loss_at,
                "num_keys": len(theta),
                "num_steps": run.num_steps,
                "outcome": outcomes.most_frequent(share),
                "share": share,
                "share_recovered": float(outcomes.recovered(labels, largest, **from_where).mean()),
                "distance_lower_quartile": lower,
                "distance_median": median,
                "distance_upper_quartile": upper,
                **run.costs,
            }
        )
    return rows


def distance(row: Row) -> str:
    """`1.0e-12 [3.2e-13, 4.1e-12]`: median and quartiles, or the one number where there is one."""
    form = "{distance_median:.1e}"
    if row["num_keys"] > 1:
        form += " [{distance_lower_quartile:.1e}, {distance_upper_quartile:.1e}]"
    return form.format_map(row)


COLUMNS: list[Column] = [
    ("method", "{label}"),
    ("η₀", "{eta_0:g}"),
    ("schedule, t in", "{schedule}"),
    ("keys", "{num_keys}"),
    *((name, f"{{share[{name}]:.1%}}") for name in outcomes.OUTCOMES),
    ("converged after running off", "{share_recovered:.1%}"),
    ("final \\|θ − θ\\*\\|, median [quartiles]", distance),
    ("time steps per second, all keys", "{steps_per_second:,.0f}"),
]

NOTE = (
    "Converged after running off: keys, counted as converged too, that had been more than "
    f"{outcomes.DIVERGED_FACTOR:.0f} times as far from θ\\* as at the start before they came back."
)
