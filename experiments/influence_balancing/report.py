"""Numbers of a study: the rows and columns of its table, and its curves as JSON Lines."""

from typing import Any

import numpy as np

from experiments.common.metrics import MetricsWriter
from experiments.common.report import Column, Row, quartiles
from experiments.influence_balancing import outcomes, system
from experiments.influence_balancing.runs import Run


def outcome_row(config: Any, run: Run, eta_0: float, schedule: str, rows: slice) -> Row:
    """The result of one method at one rate: its outcomes, and how far from θ* it ended.

    Args:
        config: of the run.
        run: the program that trained it.
        eta_0, schedule: its learning rate.
        rows: its keys, among the rows of the run.
    """
    theta = run.history.final_theta[rows]
    labels = outcomes.classify(
        theta, theta_0=config.theta_0, optimum=system.OPTIMAL_THETA, tolerance=config.tolerance
    )
    recovered = outcomes.recovered(
        labels,
        run.history.largest_theta[rows],
        theta_0=config.theta_0,
        optimum=system.OPTIMAL_THETA,
    )
    share = outcomes.shares(labels)
    distance = np.abs(theta - system.OPTIMAL_THETA)
    lower, median, upper = quartiles(distance)
    return {
        "method": run.method.name,
        "label": run.method.label,
        "eta_0": eta_0,
        "schedule": schedule,
        "loss_at": config.loss_at,
        "num_keys": len(theta),
        "num_steps": run.num_steps,
        "outcome": outcomes.most_frequent(share),
        "share": share,
        "share_recovered": float(recovered.mean()),
        "distance_lower_quartile": lower,
        "distance_median": median,
        "distance_upper_quartile": upper,
        **timing_fields(run),
    }


def timing_fields(run: Run) -> Row:
    """How fast the program was, and the longest segment it met."""
    return {
        "steps_per_second": run.steps_per_second,
        "compile_seconds": run.timing.compile_seconds,
        "run_seconds": run.timing.run_seconds,
        "longest_segment": int(run.history.longest_segment.max()),
    }


OUTCOME_COLUMNS: tuple[Column, ...] = (
    ("method", lambda row: row["label"]),
    ("η₀", lambda row: f"{row['eta_0']:g}"),
    ("schedule, t in", lambda row: row["schedule"]),
    ("keys", lambda row: str(row["num_keys"])),
    *((name, lambda row, name=name: f"{row['share'][name]:.1%}") for name in outcomes.OUTCOMES),
    ("converged after running off", lambda row: f"{row['share_recovered']:.1%}"),
    (
        "final \\|θ − θ\\*\\|, median [quartiles]",
        lambda row: median_with_quartiles(row, "distance"),
    ),
    ("time steps per second, all keys", lambda row: f"{row['steps_per_second']:,.0f}"),
)

OUTCOME_NOTE = (
    "Converged after running off: keys, counted as converged too, that had been more than "
    f"{outcomes.DIVERGED_FACTOR:.0f} times as far from θ\\* as at the start before they came back."
)


def median_with_quartiles(row: Row, field: str) -> str:
    """`1.0e-12 [3.2e-13, 4.1e-12]`, or one number where there is one key."""
    lower, median, upper = (
        row[f"{field}_{name}"] for name in ("lower_quartile", "median", "upper_quartile")
    )
    if row["num_keys"] == 1:
        return f"{median:.1e}"
    return f"{median:.1e} [{lower:.1e}, {upper:.1e}]"


def write_curves(writer: MetricsWriter, run: Run) -> None:
    """One JSON line per bin: median and quartiles over keys of the loss and of θ."""
    by_name = {
        f"{quantity}_{name}": values
        for quantity in ("loss", "theta")
        for name, values in zip(
            ("lower_quartile", "median", "upper_quartile"),
            quartiles(getattr(run.history, quantity)),
            strict=True,
        )
    }
    for index, end in enumerate(run.edges[1:]):
        numbers = {name: float(values[index]) for name, values in by_name.items()}
        writer.write({"kind": "curve", "method": run.method.name, "step": int(end), **numbers})
