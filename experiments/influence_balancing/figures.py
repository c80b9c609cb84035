"""The figures of the curves: loss against step, and θ against step.

Each line carries its label at its end. Median and quartile band over keys; one curve where a
method has no randomness.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from experiments.common.figures import COLOURS, STYLE, spread
from experiments.common.report import quartiles


@dataclass(frozen=True)
class Line:
    """One method of a figure.

    Attributes:
        label: the first words of its label, in bold.
        detail: the rest of its label, its outcome.
        values: [R, bins], one row per key; a single row is drawn without a band.
        emphasis: drawn thicker: the subject of the figure.
        dashed: drawn dashed, to be told from a line that it may lie upon.
    """

    label: str
    detail: str
    values: np.ndarray
    emphasis: bool = False
    dashed: bool = False


def loss_figure(
    edges: np.ndarray,
    lines: Sequence[Line],
    *,
    title: str,
    subtitle: str,
    x_label: str,
    y_label: str,
    x_start: float,
    y_range: tuple[float, float],
    converged_below: float,
) -> Figure:
    """Loss against step, both logarithmic; lines that leave the range stop at its border.

    Args:
        edges: [bins + 1], in the unit of the x axis.
        lines: what to draw.
        title, subtitle: the subtitle may have two lines.
        x_label, y_label, x_start, y_range: of the axes.
        converged_below: a loss, marked by a horizontal line.
    """
    figure, axes = _new_figure(title, subtitle)
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
    axes.set(xlim=(min(x_start, edges[-1] / 10), edges[-1]), ylim=y_range)
    axes.yaxis.set_major_locator(LogLocator(numticks=20))
    axes.yaxis.set_minor_locator(NullLocator())
    _reference_line(axes, converged_below, "converged below this line")
    _draw_lines(axes, edges, lines)
    return figure


def theta_figure(
    edges: np.ndarray,
    lines: Sequence[Line],
    *,
    title: str,
    subtitle: str,
    x_start: float,
    y_range: tuple[float, float],
    predicted: Sequence[float | None],
    optimum: float,
) -> Figure:
    """θ against step, with the predicted resting place of each line as a diamond on the right.

    Args:
        edges, lines, title, subtitle, x_start, y_range: as for `loss_figure`.
        predicted: one per line; None where there is none.
        optimum: θ*, marked by a horizontal line.
    """
    figure, axes = _new_figure(title, subtitle)
    axes.set(xscale="log", xlabel="time step t", ylabel="θ")
    axes.set(xlim=(min(x_start, edges[-1] / 10), edges[-1]), ylim=y_range)
    _reference_line(axes, optimum, f"optimum θ* = {optimum:.4f}".replace("-", "−"))
    _draw_lines(axes, edges, lines)
    for colour, value in zip(_colours(lines), predicted, strict=True):
        if value is not None and y_range[0] < value < y_range[1]:
            axes.plot(
                edges[-1],
                value,
                "D",
                color=colour,
                clip_on=False,
                zorder=5,
                markersize=7,
                markeredgecolor="white",
            )
    return figure


def _new_figure(title: str, subtitle: str) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 5.8))
        # The right third holds the labels.
        axes = figure.add_axes((0.078, 0.095, 0.60, 0.715))
    figure.text(0.012, 0.955, title, fontsize=14, fontweight="bold", va="center")
    figure.text(0.012, 0.925, subtitle, fontsize=10, color="0.3", va="top", linespacing=1.35)
    axes.grid(True, which="major", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _colours(lines: Sequence[Line]) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(len(lines))]


def _reference_line(axes: Axes, height: float, words: str) -> None:
    axes.axhline(height, color="0.45", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        words,
        (0, height),
        xycoords=("axes fraction", "data"),
        xytext=(5, -4),
        textcoords="offset points",
        va="top",
        color="0.25",
        fontsize=9,
        zorder=4,
        bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1},
    )


def _draw_lines(axes: Axes, edges: np.ndarray, lines: Sequence[Line]) -> None:
    centres = np.sqrt((edges[:-1] + edges[1] - edges[0]) * edges[1:])
    ends = []
    for colour, line in zip(_colours(lines), lines, strict=True):
        low, middle, high = (_drawable(axes, curve) for curve in quartiles(line.values))
        axes.plot(
            centres,
            middle,
            color=colour,
            linewidth=2.6 if line.emphasis else 1.7,
            zorder=3,
            linestyle=(0, (4, 2)) if line.dashed else "-",
        )
        if len(line.values) > 1:
            axes.fill_between(centres, low, high, color=colour, alpha=0.2, linewidth=0, zorder=2)
        ends.append(_end_of(axes, centres, middle))
    _label_ends(axes, ends, lines)


def _drawable(axes: Axes, curve: np.ndarray) -> np.ndarray:
    """Cut a little outside the axes: matplotlib cannot draw lines to infinity."""
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log":
        return np.clip(curve, low / 10, high * 10)
    return np.clip(curve, low - (high - low), high + (high - low))


def _end_of(axes: Axes, xs: np.ndarray, ys: np.ndarray) -> tuple[float, float]:
    """Where a curve ends, or leaves the axes for good, in axes coordinates in [0, 1].

    x = 0 for a curve that is never seen.
    """
    low, high = axes.get_ylim()
    inside = np.flatnonzero((ys >= low) & (ys <= high) & (xs >= axes.get_xlim()[0]))
    last = min(int(inside[-1]) + 1 if len(inside) else 0, len(xs) - 1)
    point = axes.transData.transform((xs[last], np.clip(ys[last], low, high)))
    x, y = axes.transAxes.inverted().transform(point)
    return float(np.clip(x, 0, 1)), float(np.clip(y, 0, 1))


def _label_ends(axes: Axes, ends: Sequence[tuple[float, float]], lines: Sequence[Line]) -> None:
    # Of the curves that leave at the top, the first gets the highest label, and at the bottom the
    # lowest: then no leader crosses another one, nor a curve.
    wanted = [y + (y == 1) * (1 - x) - (y == 0) * (1 - x) for x, y in ends]
    heights = spread(wanted, gap=0.112, low=0.03, high=1.06)
    for colour, (x, y), height, line in zip(_colours(lines), ends, heights, lines, strict=True):
        if x > 0:
            axes.plot(
                [x, 1.035],
                [y, height],
                transform=axes.transAxes,
                color=colour,
                linewidth=0.8,
                linestyle=":",
                clip_on=False,
            )
        # Darker than the line: pale letters are hard to read.
        ink = tuple(0.75 * part for part in to_rgb(colour))
        axes.text(
            1.045,
            height + 0.004,
            line.label,
            transform=axes.transAxes,
            color=ink,
            fontweight="bold",
            va="bottom",
            clip_on=False,
        )
        axes.text(
            1.045,
            height - 0.004,
            line.detail,
            transform=axes.transAxes,
            color="0.2",
            va="top",
            fontsize=9,
            clip_on=False,
        )
