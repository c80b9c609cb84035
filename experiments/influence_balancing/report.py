"""Numbers of a study as a Markdown table, as JSON, and as JSON Lines."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common.metrics import MetricsWriter
from experiments.common.workdir import write_atomically
from experiments.influence_balancing import outcomes, system
from experiments.influence_balancing.runs import Run

Row = dict[str, Any]
# A heading of the table, and the text of its cell.
Column = tuple[str, Callable[[Row], str]]


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


def quartiles(values: np.ndarray, axis: int = 0) -> tuple[Any, Any, Any]:
    """Lower quartile, median, upper quartile: values that occur, NaN counted as infinity.

    "Values that occur", because halfway between a number and infinity there is nothing.
    """
    ordered = np.where(np.isnan(values), np.inf, values)
    result = np.quantile(ordered, (0.25, 0.5, 0.75), axis=axis, method="nearest")
    return tuple(part.item() if part.ndim == 0 else part for part in result)


def markdown_table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """The rows under the headings of `columns`, as a Markdown table."""
    lines = [[heading for heading, _ in columns], ["---"] * len(columns)]
    lines += [[cell(row) for _, cell in columns] for row in rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


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


def write_results(folder: Path, rows: Sequence[Row], columns: Sequence[Column], note: str) -> str:
    """Writes `table.md`, and last of all `results.json`: a list, one object per row of the table.

    Returns:
        The table, with the note under it.
    """
    table = f"{markdown_table(rows, columns)}\n{note}\n"
    write_atomically(folder / "table.md", table)
    text = json.dumps(_finite(rows), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / "results.json", text + "\n")
    return table


def _finite(value: Any) -> Any:
    # JSON has neither NaN nor infinity: null.
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
