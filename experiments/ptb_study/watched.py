"""What the runs of a study measured on themselves: bias and noise of truncated gradients."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.common.metrics import read_metrics
from experiments.common.tables import markdown_table
from experiments.ptb_study.report import Outcome, select

# Rows of metrics without a measured value.
_COUNTERS = ("kind", "epoch", "update", "time_step", "time")


def measurements(
    folder: pathlib.Path, outcomes: Sequence[Outcome], arms: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """The "measurement" rows of each arm, of all its seeds together; without arms that have none.

    Args:
        folder: of the study.
        outcomes: of the runs so far.
        arms: their names.
    """
    found = {}
    for arm in arms:
        rows = [
            row
            for outcome in select(outcomes, "compare", arm)
            if outcome.failure is None
            for row in read_metrics(folder / "runs" / outcome.run.name / "metrics.jsonl")
            if row["kind"] == "measurement"
        ]
        if rows:
            found[arm] = rows
    return found


def names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was measured: "bias_50" and the like, shortest truncation first."""
    biases = [name for name in rows[0] if name.startswith("bias_")]
    biases.sort(key=lambda name: int(name.removeprefix("bias_")))
    others = [n for n in rows[0] if n not in (*_COUNTERS, *biases, "gradient_norm")]
    return [*biases, *(name for name in others if not name.startswith("projection_"))]


def median_by_epoch(rows: Sequence[Mapping[str, Any]], name: str) -> dict[int, float]:
    """Median over seeds and measurements in each epoch; values that were not finite left out."""
    epochs = sorted({row["epoch"] for row in rows})
    values = {
        epoch: [r[name] for r in rows if r["epoch"] == epoch and r[name] is not None]
        for epoch in epochs
    }
    return {epoch: float(np.median(found)) for epoch, found in values.items() if found}


def markdown(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A table of medians per epoch, with what they mean; nothing where nothing was measured."""
    if not found:
        return ""
    measured = names(next(iter(found.values())))
    rows = [
        {"arm": arm, **{name: median_by_epoch(rows, name) for name in measured}}
        for arm, rows in found.items()
    ]

    def column(name: str) -> Any:
        return name, lambda row: " → ".join(f"{value:.3f}" for value in row[name].values())

    table = markdown_table(
        rows, [("arm", lambda row: row["arm"]), *(column(name) for name in measured)]
    )
    return f"""
## Bias and noise along the training

Measured beside each compared run with its own parameters, on the window that comes next, relative
to the window's gradient: median over seeds and windows, epoch by epoch. bias_K: ‖ĝ(K) − g‖ ÷ ‖g‖ of
TBPTT with cuts every K steps; artbp_noise: root mean square of ARTBP's ‖ĝ − g‖ ÷ ‖g‖ over its
boundaries; carry_error: what it changes that the carry comes from older parameters. See
`artbp.diagnostics.shadow`.

{table}"""
