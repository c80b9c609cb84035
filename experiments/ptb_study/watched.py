"""What the runs of a study measured on themselves: errors of truncated gradients."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.common.metrics import read_metrics
from experiments.common.report import markdown_table
from experiments.ptb_study.report import Outcome, select, student_interval

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
    projections = [name.replace("bias_", "projection_") for name in biases]
    others = [n for n in rows[0] if n not in (*_COUNTERS, *biases, *projections, "gradient_norm")]
    return [*biases, *projections, *others]


def by_epoch(rows: Sequence[Mapping[str, Any]], name: str) -> dict[int, str]:
    """Over seeds and measurements in each epoch; values that were not finite left out.

    The mean of a projection, with its 95 % interval over measurements; the median of a norm.
    """
    epochs = sorted({row["epoch"] for row in rows})
    values = {
        epoch: [r[name] for r in rows if r["epoch"] == epoch and r[name] is not None]
        for epoch in epochs
    }
    if not name.startswith("projection_"):
        return {epoch: f"{np.median(found):.3f}" for epoch, found in values.items() if found}
    means = {epoch: student_interval(found) for epoch, found in values.items() if found}
    return {epoch: f"{m.mean:+.3f} ± {m.half_width:.3f}" for epoch, m in means.items()}


def markdown(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A table epoch by epoch, with what it means; nothing where nothing was measured."""
    if not found:
        return ""
    measured = names(next(iter(found.values())))
    rows = [
        {"arm": arm, **{name: by_epoch(rows, name) for name in measured}}
        for arm, rows in found.items()
    ]

    def column(name: str) -> Any:
        return name, lambda row: " → ".join(row[name].values())

    table = markdown_table(
        rows, [("arm", lambda row: row["arm"]), *(column(name) for name in measured)]
    )
    return f"""
## Errors along the training

Measured beside each compared run with its own parameters, on the window that comes next, relative
to the window's gradient g, epoch by epoch. bias_K: ‖ĝ(K) − g‖ ÷ ‖g‖ of TBPTT with cuts every K
steps; artbp_noise: root mean square of ARTBP's ‖ĝ − g‖ ÷ ‖g‖ over its boundaries; carry_error: what
it changes that the carry comes from older parameters: medians over seeds and windows. These are
errors of single windows: their spread from window to window is in them and does not average out.
projection_K: ⟨ĝ(K) − g, g⟩ ÷ ‖g‖², the mean, with its 95 % interval over windows, as if these were
independent: the share of a window's own gradient that is lost, of its noise too. The
cuts of K = 200 are at step 200 of each window of 256. Size and interval of the bias at the end are
in limits.md. See `artbp.diagnostics.shadow`.

{table}"""
