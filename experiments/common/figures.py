"""Gives the figures of all experiments their style, colours, headline and labels.

Colours are those of Okabe & Ito, which readers with any colour vision can tell apart. An arm has
the colour of its family in every figure; see `colors`.
"""

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.optimize import isotonic_regression

from experiments.common.workdir import write_atomically

COLOURS = ("#0072B2", "#009E73", "#56B4E9", "#D55E00", "#E69F00", "#CC79A7", "#000000", "#7F7F7F")

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "svg.hashsalt": "artbp",  # the same picture gives the same file
}

Box = tuple[float, float, float, float]


def new_figure(
    size: tuple[float, float], title: str, subtitle: str, boxes: Iterable[Box]
) -> tuple[Figure, list[Axes]]:
    """Makes a figure with a headline, and axes in these boxes (left, bottom, width, height).

    The size is in inches, the boxes are in shares of the figure. The headline takes 0.6 inches at
    the top, and more if the subtitle has several lines.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size)
        axes = [figure.add_axes(box) for box in boxes]
    left, top = 0.15 / size[0], 1 - 0.12 / size[1]
    figure.text(left, top, title, fontsize=14, fontweight="bold", va="top")
    below = top - 0.27 / size[1]
    figure.text(left, below, subtitle, color="0.3", va="top", linespacing=1.35)
    return figure, axes


def save(figure: Figure, path: Path) -> None:
    """Writes `path` with the endings .png and .svg, each whole or not at all."""
    options: dict[str, Any] = {"png": {"dpi": 160}, "svg": {"metadata": {"Date": None}}}
    for form, of_form in options.items():
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(buffer, format=form, **of_form)
        write_atomically(path.with_suffix(f".{form}"), buffer.getvalue())


def colors(arms: Sequence[Any]) -> dict[Any, str]:
    """Gives each arm the colour of its family, from light to dark where there are several."""
    found, seen = {}, Counter()
    of_family = Counter(arm.color for arm in arms)
    for arm in arms:
        place, number = seen[arm.color], of_family[arm.color]
        seen[arm.color] += 1
        # From the colour with half of white to the colour with a third of black.
        shade = -0.5 + 0.83 * place / (number - 1) if number > 1 else 0.0
        target, share = (1.0, -shade) if shade < 0 else (0.0, shade)
        red, green, blue = ((1 - share) * part + share * target for part in to_rgb(arm.color))
        found[arm] = arm.color if number == 1 else to_hex((red, green, blue))
    return found


def ink(color: Any) -> tuple[float, ...]:
    """Returns a darker colour, for words about a line: pale letters are hard to read."""
    return tuple(0.75 * part for part in to_rgb(color))


def plain_ticks(axis: Axis, ticks: Sequence[float], form: str = "{:g}") -> None:
    """Sets ticks at these numbers only, written in full, such as on a logarithmic axis."""
    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: form.format(value)))


def grid(axes: Axes, which: Any = "both") -> None:
    """Draws a pale grid behind the lines."""
    axes.grid(True, axis=which, color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)


def label_ends(
    axes: Axes, labels: Sequence[tuple[float, str, Mapping[str, Any]]], *, gap: float = 0.065
) -> None:
    """Writes labels right of the axes, at the heights at which their curves end.

    Labels that are too near are moved apart, by `gap` of the height of the axes.

    Args:
        axes: with its final limits.
        labels: (height in data coordinates, words, pen). The pen has a "color" and, for a sample
            of the line before the words, a "linestyle".
        gap: between two labels.
    """
    if not labels:
        return
    ordered = sorted(labels, key=lambda label: label[0])
    ends = np.array([(1.0, label[0]) for label in ordered])
    places = axes.transAxes.inverted().transform(axes.transData.transform(ends))[:, 1]
    places = spread(np.nan_to_num(places, nan=1.0).tolist(), gap=gap, low=0.0, high=1.0)
    for place, (_, words, pen) in zip(places, ordered, strict=True):
        left = 1.02
        if "linestyle" in pen:
            sample: Any = {"transform": axes.transAxes, "clip_on": False, "linewidth": 2.0}
            axes.plot([left, left + 0.085], [place, place], **sample, **pen)
            left += 0.105
        style: Any = {"va": "center", "fontweight": "bold", "fontsize": 9.5, "linespacing": 0.95}
        axes.text(left, place, words, transform=axes.transAxes, color=ink(pen["color"]), **style)


def spread(heights: Sequence[float], *, gap: float, low: float, high: float) -> np.ndarray:
    """Moves labels as little as needed to be `gap` apart and in [low, high], in their order.

    Least squares: isotonic regression of the heights less their share of gaps, then clipped, which
    keeps it optimal. Labels too many for the range get equal gaps.
    """
    gap = min(gap, (high - low) / max(len(heights) - 1, 1))
    order = np.argsort(heights, kind="stable")
    gaps = gap * np.arange(len(heights))
    moved = isotonic_regression(np.asarray(heights, float)[order] - gaps).x
    placed = np.empty(len(heights))
    placed[order] = np.clip(moved, low, high - gaps[-1]) + gaps
    return placed
