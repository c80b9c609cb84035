"""Study "curves": loss against step, and what became of the keys. The main job.

With `loss_at = "unroll end"` it has the form of google-research/persistent_es: the loss is taken
once, at the end of each unroll, and the figure shows the long-run loss of the θ in force.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.arms import Arm
from experiments.common.figures import colors, grid, label_ends, new_figure
from experiments.common.report import Report, Row, quartiles, table
from experiments.influence_balancing import system
from experiments.influence_balancing.outcomes import COLUMNS, NOTE, rows_of
from experiments.influence_balancing.training import Run


def report(config: Any, runs: Sequence[Run]) -> Report:
    """One row per arm, its curves, and the figure of the loss."""
    rows = [row for run in runs for row in rows_of(config, run)]
    at_unroll_end = config.loss_at == "unroll end"
    edges, lines = runs[0].edges / (runs[0].arm.length if at_unroll_end else 1), []
    for run, row in zip(runs, rows, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            values = system.stationary_loss(run.theta) if at_unroll_end else run.loss
        lines.append((run.arm, values, words([row])))
    decay = "" if config.schedule == "constant" else f"/√(1+t), t in {config.schedule}"
    converged = system.stationary_loss(np.asarray(system.OPTIMAL_THETA + config.tolerance))
    drawn, _ = draw_curves(
        edges,
        lines,
        title="Influence balancing: a gradient that looks back too few steps has the wrong sign",
        subtitle=f"Online SGD, learning rate {config.eta_0:g}{decay}."
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
    number, (first, *others) = row["num_keys"], [n for n, share in row["share"].items() if share]
    if not others:
        return first if number == 1 else f"{first}: all {number} keys"
    counts = [f"{name} {round(row['share'][name] * number)}" for name in (first, *others)]
    return f"{', '.join(counts)} of {number} keys"


def draw_curves(
    edges: np.ndarray,
    lines: Sequence[tuple[Arm, np.ndarray, str]],
    *,
    title: str,
    subtitle: str,
    mark: tuple[float, str],
    **axes_options: Any,
) -> tuple[Figure, Axes]:
    """Median and quartiles over keys against step, one line per arm: the figure and its axes.

    `edges` [bins + 1] are in the unit of the x axis. A line is (arm, values [keys, bins], words
    after its label). `mark` is the height and the words of a horizontal line.
    """
    figure, (axes,) = new_figure((11, 5.8), title, subtitle, [(0.07, 0.095, 0.56, 0.735)])
    axes.set(xscale="log", **axes_options)
    grid(axes)
    axes.axhline(mark[0], color="0.45", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    style: Any = {"textcoords": "offset points", "va": "top", "color": "0.25", "fontsize": 9}
    axes.annotate(mark[1], (axes.get_xlim()[0], mark[0]), xytext=(5, -4), **style)
    low, high = axes.get_ylim()
    # A little outside the axes: matplotlib cannot draw lines to infinity.
    limits = (low / 10, 10 * high) if axes.get_yscale() == "log" else (2 * low, 2 * high)
    centres = np.sqrt((edges[:-1] + edges[1] - edges[0]) * edges[1:])
    own, labels = colors([arm for arm, _, _ in lines]), []
    for arm, values, words in lines:
        lower, median, upper = (np.clip(curve, *limits) for curve in quartiles(values))
        dashed = arm.claims.random and not arm.claims.unbiased  # may lie on another line
        pen: Any = {"color": own[arm], "linestyle": (0, (4, 2)) if dashed else "-"}
        axes.plot(centres, median, linewidth=2.6 if arm.claims.unbiased else 1.7, **pen)
        if len(values) > 1:
            axes.fill_between(centres, lower, upper, color=own[arm], alpha=0.2, linewidth=0)
        labels.append((quartiles(values)[1][-1], f"{arm.label}\n{words}", pen))
    label_ends(axes, labels, gap=0.115)
    return figure, axes
