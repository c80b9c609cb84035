"""Study "rates": every method over a grid of learning rates and both readings of the schedule."""

import itertools
from collections.abc import Callable
from typing import Any

from experiments.common.figures import save
from experiments.common.metrics import MetricsWriter
from experiments.common.report import Row, write_results
from experiments.common.workdir import Workdir
from experiments.influence_balancing import methods, outcomes, report, runs
from experiments.influence_balancing.heat_map import heat_map


def run(config: Any, workdir: Workdir, say: Callable[[str], None]) -> str:
    """Writes rates.png, rates.svg, table.md, results.json and metrics.

    All rates, schedules and keys of a method are rows of one compiled program.

    Returns:
        The table, one line per method, schedule and rate.
    """
    eta_0, schedules = tuple(config.grid_eta_0), tuple(config.grid_schedules)
    trained = runs.train_all(
        config,
        [methods.parse(name) for name in config.methods],
        eta_0=eta_0,
        schedules=schedules,
        describe=lambda method_run: _words(_rows(config, method_run)),
        say=say,
    )
    rows = [row for method_run in trained for row in _rows(config, method_run)]
    with MetricsWriter(workdir.metrics_path) as writer:
        for row in rows:
            writer.write({"kind": "result", **row})
    figure = heat_map(
        rows,
        labels=[method_run.method.label for method_run in trained],
        eta_0=eta_0,
        schedules=schedules,
        subtitle=f"Influence balancing, {config.num_steps:,} time steps, {config.num_keys} keys; "
        f"converged: |θ − θ*| < {config.tolerance:g}. TBPTT is deterministic: one run a cell.",
    )
    save(figure, workdir.path / "rates.png")
    return write_results(workdir.path, rows, report.OUTCOME_COLUMNS, report.OUTCOME_NOTE)


def _rows(config: Any, method_run: runs.Run) -> list[Row]:
    # Rows of a program are ordered (schedule, rate, key).
    settings = list(itertools.product(config.grid_schedules, config.grid_eta_0))
    keys = method_run.num_rows // len(settings)
    return [
        report.outcome_row(
            config, method_run, rate, schedule, slice(index * keys, (index + 1) * keys)
        )
        for index, (schedule, rate) in enumerate(settings)
    ]


def _words(rows: list[Row]) -> str:
    good = sum(row["share"][outcomes.CONVERGED] == 1 for row in rows)
    return f"all keys converged at {good} of {len(rows)} learning rates"
