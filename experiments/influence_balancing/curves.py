"""Study "curves": loss against step, and what became of the keys. The main job.

With `loss_at = "unroll end"` it has the form of google-research/persistent_es: the loss is taken
once, at the end of each unroll. The figure then shows the long-run loss of the θ in force against
the number of unrolls, as in that project.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common.report import Report, Row, table
from experiments.influence_balancing import figure, system
from experiments.influence_balancing.report import COLUMNS, NOTE, rows_of
from experiments.influence_balancing.training import Run


def report(config: Any, runs: Sequence[Run]) -> Report:
    """One row per arm, its curves, and the figure of the loss."""
    rows = [row for run in runs for row in rows_of(config, run)]
    at_unroll_end = config.loss_at == "unroll end"
    edges, lines = runs[0].edges, []
    if at_unroll_end:
        edges = edges / runs[0].arm.length
    for run, row in zip(runs, rows, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            values = system.stationary_loss(run.theta) if at_unroll_end else run.loss
        lines.append((run.arm, values, words([row])))
    rate = f"{config.eta_0:g}"
    if config.schedule != "constant":
        rate += f"/√(1+t), t in {config.schedule}"
    converged = system.stationary_loss(np.asarray(system.OPTIMAL_THETA + config.tolerance))
    drawn, _ = figure.draw(
        edges,
        lines,
        title="Influence balancing: a gradient that looks back too few steps has the wrong sign",
        subtitle=f"Online SGD, learning rate {rate}."
        + " The loss is taken once, at the end of each unroll." * at_unroll_end
        + f"\nLines: median of {config.num_keys} keys; bands: quartiles. TBPTT has no randomness.",
        mark=(float(converged), "converged below this line"),
        xlabel="unrolls" if at_unroll_end else "time step t",
        ylabel="long-run loss of the current θ" if at_unroll_end else "loss per time step",
        xlim=(min(1 if at_unroll_end else 10, edges[-1] / 10), edges[-1]),
        yscale="log",
        ylim=(1e-12, 1e4),
    )
    curves = [row for run in runs for row in run.curves()]
    return Report(table(rows, COLUMNS, NOTE), rows, {"loss": drawn}, curves)


def words(rows: Sequence[Row]) -> str:
    """What became of the keys of one arm, in a few words."""
    (row,) = rows
    num_keys = row["num_keys"]
    found = {name: share for name, share in row["share"].items() if share > 0}
    if num_keys == 1:
        return next(iter(found))
    if len(found) == 1:
        return f"{next(iter(found))}: all {num_keys} keys"
    counts = (f"{name} {round(share * num_keys)}" for name, share in found.items())
    return f"{', '.join(counts)} of {num_keys} keys"
