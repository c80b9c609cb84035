"""A panel for each system: bias of TBPTT, noise of ARTBP, noise of the data, on one axis."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from artbp import diagnostics
from experiments.common.figures import STYLE

_COLUMNS = 2


def make_figure(panels: Sequence[tuple[str, diagnostics.GradientReport]]) -> Figure:
    """One panel for each (label, report)."""
    num_rows = -(-len(panels) // _COLUMNS)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(14, 1 + 4.4 * num_rows), layout="constrained")
        grid = figure.subplots(num_rows, _COLUMNS, squeeze=False).ravel()
        for axes, (label, report) in zip(grid, panels, strict=False):
            diagnostics.plot_report(report, axes)
            lines = textwrap.wrap(diagnostics.describe(report), 92)
            title = label.replace("\n", ", ")
            axes.set_title(title, loc="left", fontweight="bold", pad=10 + 11 * len(lines))
            axes.text(
                0, 1.02, "\n".join(lines), transform=axes.transAxes, fontsize=8.5, va="bottom"
            )
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        figure.suptitle(
            "How biased is truncation, and how noisy is the gradient without the bias?",
            x=0.01,
            ha="left",
            fontsize=14,
            fontweight="bold",
        )
    return figure
