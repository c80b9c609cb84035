"""What single runs of experiments.ptb measured on themselves, one row for each run.

    python -m experiments.ptb_study.side_by_side --runs DIR1,DIR2,...

With runs at several learning rates: the error of a gradient whose carry comes from older params,
`carry_error` of `artbp.diagnostics.shadow`, against the learning rate.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments.common.errors import WorkdirError
from experiments.common.guarded import run_guarded
from experiments.common.metrics import read_metrics
from experiments.common.report import markdown_table
from experiments.common.workdir import read_workdir
from experiments.ptb_study.watched import names


def table(folders: Sequence[pathlib.Path]) -> str:
    """Medians over the measurements of each run, in the order of the learning rates.

    Raises:
        WorkdirError: no folder; or one that holds no run, or a run without measurements.
    """
    if not folders:
        raise WorkdirError("--runs is empty: name the folders of one or more runs.")
    runs: list[dict[str, Any]] = []
    for folder in folders:
        workdir, config = read_workdir(folder)
        written = read_metrics(workdir.metrics_path)
        rows = [row for row in written if row["kind"] == "measurement"]
        if not rows:
            raise WorkdirError(f"{folder} holds no measurements: run it with shadow.every above 0.")
        bits = [r["valid_bpc"] for r in written if r["kind"] == "evaluation"]
        runs.append({"config": config, "rows": rows, "bits": bits})
    runs.sort(key=lambda run: run["config"]["optimizer"]["learning_rate"])

    def column(name: str) -> Any:
        def cell(run: Mapping[str, Any]) -> str:
            values = [row[name] for row in run["rows"] if row.get(name) is not None]
            return f"{np.median(values):.4f}" if values else ""

        return name, cell

    measured = [name for name in names(runs[0]["rows"]) if not name.startswith("projection_")]
    columns = [
        ("method", lambda run: run["config"]["method"]),
        ("optimiser", lambda run: run["config"]["optimizer"]["name"]),
        ("learning rate", lambda run: f"{run['config']['optimizer']['learning_rate']:g}"),
        ("bits per character, validation", lambda run: " → ".join(f"{b:.3f}" for b in run["bits"])),
        ("measurements", lambda run: str(len(run["rows"]))),
        *(column(name) for name in measured),
    ]
    return markdown_table(runs, columns)


if __name__ == "__main__":
    _RUNS = flags.DEFINE_list("runs", [], "Folders of runs of experiments.ptb.")
    run_guarded(lambda: print(table([pathlib.Path(name) for name in _RUNS.value])))
