"""Study "rates": every method over a grid of learning rates and both readings of the schedule."""

import itertools
from typing import Any

from experiments.common.metrics import MetricsWriter
from experiments.common.workdir import Workdir
from experiments.influence_balancing import figures, methods, report, runs
from experiments.influence_balancing.heat_map import heat_map


def run(config: Any, workdir: Workdir) -> str:
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
    )
    rows = []
    for method_run in trained:
        # Rows of a program are ordered (schedule, rate, key).
        keys = method_run.num_rows // (len(schedules) * len(eta_0))
        settings = itertools.product(schedules, eta_0)
        rows += [
            report.outcome_row(
                config, method_run, rate, schedule, slice(index * keys, (index + 1) * keys)
            )
            for index, (schedule, rate) in enumerate(settings)
        ]
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
    figures.save(figure, workdir.path / "rates.png")
    return report.write_results(workdir.path, rows, report.OUTCOME_COLUMNS)
