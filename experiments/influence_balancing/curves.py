"""Study "curves": loss against step, and what became of the keys. The main job.

With `loss_at = "unroll end"` it has the form of google-research/persistent_es instead: the loss is
taken once, at the end of each unroll, and the figure shows the long-run loss of the θ in force
against the number of unrolls, as that project does.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.common.figures import save
from experiments.common.metrics import MetricsWriter
from experiments.common.report import Row, write_results
from experiments.common.workdir import Workdir
from experiments.influence_balancing import figures, methods, report, runs, system


def run(config: Any, workdir: Workdir, say: Callable[[str], None]) -> str:
    """Trains the methods of `config`; writes loss.png, loss.svg, table.md, results.json, metrics.

    Returns:
        The table.
    """

    def row_of(method_run: runs.Run) -> Row:
        return report.outcome_row(config, method_run, config.eta_0, config.schedule, slice(None))

    trained = runs.train_all(
        config,
        [methods.parse(name) for name in config.methods],
        eta_0=(config.eta_0,),
        schedules=(config.schedule,),
        describe=lambda method_run: outcome_words(row_of(method_run)),
        say=say,
    )
    rows = [row_of(method_run) for method_run in trained]
    with MetricsWriter(workdir.metrics_path) as writer:
        for method_run, row in zip(trained, rows, strict=True):
            report.write_curves(writer, method_run)
            writer.write({"kind": "result", **row})
    save(_figure(config, trained, rows), workdir.path / "loss.png")
    return write_results(workdir.path, rows, report.OUTCOME_COLUMNS, report.OUTCOME_NOTE)


def _figure(config: Any, trained: Sequence[runs.Run], rows: Sequence[Row]) -> Any:
    at_unroll_end = config.loss_at == "unroll end"
    lines, edges = [], []
    for method_run, row in zip(trained, rows, strict=True):
        history = method_run.history
        if at_unroll_end:
            with np.errstate(over="ignore", invalid="ignore"):
                values = system.stationary_loss(history.theta)
            edges.append(method_run.edges / method_run.method.unroll_length)
        else:
            values = history.loss
            edges.append(method_run.edges)
        lines.append(
            figures.Line(
                label=method_run.method.label,
                detail=outcome_words(row),
                values=values,
                emphasis=method_run.method.compensate,
                dashed=method_run.method.is_random and not method_run.method.compensate,
            )
        )
    return figures.loss_figure(
        edges[0],
        lines,
        title="Influence balancing: a gradient that looks back too few steps has the wrong sign",
        subtitle=f"Online SGD, learning rate {_rate_words(config)}."
        + (" The loss is taken once, at the end of each unroll." if at_unroll_end else "")
        + f"\nLines: median of {config.num_keys} keys; bands: quartiles. TBPTT has no randomness.",
        x_label="unrolls" if at_unroll_end else "time step t",
        y_label="long-run loss of the current θ" if at_unroll_end else "loss per time step",
        x_start=1 if at_unroll_end else 10,
        y_range=(1e-12, 1e4),
        converged_below=float(
            system.stationary_loss(np.asarray(system.OPTIMAL_THETA + config.tolerance))
        ),
    )


def _rate_words(config: Any) -> str:
    if config.schedule == "constant":
        return f"{config.eta_0:g}"
    return f"{config.eta_0:g}/√(1+t), t in {config.schedule}"


def outcome_words(row: Row) -> str:
    """What became of the keys of one row, in a few words."""
    num_keys = row["num_keys"]
    found = {name: share for name, share in row["share"].items() if share > 0}
    if num_keys == 1:
        return next(iter(found))
    if len(found) == 1:
        return f"{next(iter(found))}: all {num_keys} keys"
    counts = (f"{name} {round(share * num_keys)}" for name, share in found.items())
    return f"{', '.join(counts)} of {num_keys} keys"
