"""Curves against step: median and quartiles over keys, one line per arm."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.arms import Arm
from experiments.common.figures import colors, grid, label_ends, new_figure
from experiments.common.report import quartiles


def draw(
    edges: np.ndarray,
    lines: Sequence[tuple[Arm, np.ndarray, str]],
    *,
    title: str,
    subtitle: str,
    mark: tuple[float, str],
    **axes_options: Any,
) -> tuple[Figure, Axes]:
    """The figure, and its axes.

    Args:
        edges: [bins + 1], the bins in the unit of the x axis.
        lines: (arm, values [keys, bins], words that follow its label).
        title, subtitle: of the figure.
        mark: height and words of a horizontal line.
        axes_options: for `Axes.set`, with "ylim" and, for a logarithmic y axis, "yscale".
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
