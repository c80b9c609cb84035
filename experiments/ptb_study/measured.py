"""The errors of truncated gradients that the runs of a study measured on themselves.

    python -m experiments.ptb_study.measured --runs DIR1,DIR2,...

prints a table of single runs of experiments.ptb, one row for each. With runs at several learning
rates it shows `carry_error` of `artbp.diagnostics.shadow`, the error of a gradient whose carry
comes from older params, against the learning rate.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags

from experiments.common.errors import WorkdirError, run_guarded
from experiments.common.metrics import read_metrics
from experiments.common.report import Column, Row, interval, markdown_table
from experiments.common.workdir import read_workdir
from experiments.ptb_study.report import run_of, runs_of_arm


def measurements(
    folder: pathlib.Path, rows: Sequence[Row], arms: Sequence[str]
) -> dict[str, list[Row]]:
    """The "measurement" rows of each arm, of all its seeds; without arms that have none."""
    found = {
        arm: [
            row
            for run in map(run_of, runs_of_arm(rows, "compare", arm, finished=True))
            for row in read_metrics(folder / "runs" / run.name / "metrics.jsonl")
            if row["kind"] == "measurement"
        ]
        for arm in arms
    }
    return {arm: rows for arm, rows in found.items() if rows}


def names(rows: Sequence[Row]) -> list[str]:
    """The measured values: "bias_50" and the like, shortest truncation first."""
    biases = [name for name in rows[0] if name.startswith("bias_")]
    biases.sort(key=lambda name: int(name.removeprefix("bias_")))
    projections = [name.replace("bias_", "projection_") for name in biases]
    others = [name for name in ("artbp_noise", "carry_error") if name in rows[0]]
    return [*biases, *projections, *others]


def by_epoch(rows: Sequence[Row], name: str) -> dict[int, str]:
    """Over seeds and measurements in each epoch; values that were not finite are left out.

    The mean of a projection, with its 95 % interval over measurements; the median of a norm.
    """
    values: dict[int, list[float]] = {}
    for row in sorted(rows, key=lambda row: row["epoch"]):
        if row[name] is not None:
            values.setdefault(row["epoch"], []).append(row[name])
    if name.startswith("projection_"):
        return {n: "{:+.3f} ± {:.3f}".format(*interval(found)) for n, found in values.items()}
    return {epoch: f"{np.median(found):.3f}" for epoch, found in values.items()}


def _line(rows: Sequence[Row], name: str) -> str:
    """All epochs that were measured; – for one without a finite value."""
    found = by_epoch(rows, name)
    return " → ".join(found.get(epoch, "–") for epoch in sorted({row["epoch"] for row in rows}))


def markdown(found: Mapping[str, Sequence[Row]]) -> str:
    """A table epoch by epoch, with an explanation; nothing where nothing was measured."""
    if not found:
        return ""
    rows = [
        {"arm": arm} | {name: _line(rows, name) for name in names(rows)}
        for arm, rows in found.items()
    ]
    table = markdown_table(rows, [(name, f"{{{name}}}") for name in rows[0]])
    return f"""
## Errors along the training

Measured during each compared run with its own parameters, on the window that comes next, relative
to the window's gradient g, epoch by epoch. bias_K: ‖ĝ(K) − g‖ ÷ ‖g‖ of TBPTT with boundaries every
K steps. artbp_noise: root mean square of ARTBP's ‖ĝ − g‖ ÷ ‖g‖ over its boundaries. carry_error:
the change of g if the carry came from the present parameters and not from older ones. All three are
medians over seeds and windows. They are errors of single windows, so the spread from window to
window is in them and does not average out. projection_K: ⟨ĝ(K) − g, g⟩ ÷ ‖g‖², the mean, with its
95 % interval over windows, as if these were independent. It is the share of a window's own gradient
that is lost, of its noise too. The boundaries of each window are at the multiples of K, so its last
segment may be shorter than K.
Size and interval of the bias at the end are in limits.md. See `artbp.diagnostics.shadow`.

{table}"""


def table_of_runs(folders: Sequence[pathlib.Path]) -> str:
    """Medians over the measurements of each run, in the order of the learning rates."""
    if not folders:
        raise WorkdirError("--runs is empty: name the folders of one or more runs.")
    runs: list[Row] = []
    measured: list[str] = []
    for folder in folders:
        workdir, config = read_workdir(folder)
        written = read_metrics(workdir.metrics_path)
        rows = [row for row in written if row["kind"] == "measurement"]
        if not rows:
            raise WorkdirError(f"{folder} holds no measurements: run it with shadow.every above 0.")
        bits = [f"{r['valid_bpc']:.3f}" for r in written if r["kind"] == "evaluation"]
        run = {"arm": config["arm"], "number": len(rows), **config["optimizer"]}
        run["bits"] = " → ".join(bits)
        measured = [name for name in names(rows) if not name.startswith("projection_")]
        for name in measured:
            values = [row[name] for row in rows if row[name] is not None]
            run[name] = f"{np.median(values):.4f}" if values else ""
        runs.append(run)
    columns: list[Column] = [
        ("arm", "{arm}"),
        ("optimiser", "{name}"),
        ("learning rate", "{learning_rate:g}"),
        ("bits per character, validation", "{bits}"),
        ("measurements", "{number}"),
        *((name, lambda run, name=name: run.get(name, "")) for name in measured),
    ]
    return markdown_table(sorted(runs, key=lambda run: run["learning_rate"]), columns)


if __name__ == "__main__":
    _RUNS = flags.DEFINE_list("runs", [], "Folders of runs of experiments.ptb.")
    run_guarded(lambda: print(table_of_runs([pathlib.Path(name) for name in _RUNS.value])))
