"""Paired differences with intervals, and the bias and noise that the runs measured."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common import figures
from experiments.common.figures import COLOURS
from experiments.common.report import Row
from experiments.ptb_study import measured
from experiments.ptb_study.report import LEVEL, difference, paired_differences, unfinished
from experiments.ptb_study.study import ARMS

_BINS = 12
_LINEAR = 0.1  # bits per character


def draw(
    references: Mapping[str, str | None], rows: Sequence[Row], found: Sequence[Row], *, seeds: Any
) -> Figure:
    """Both panels; the right one from `found`, the measurements of the first arm, if any."""
    watched = ARMS[next(iter(references))]
    figure, (left, right) = figures.new_figure(
        (12, 4.9),
        "ARTBP against TBPTT on Penn Treebank characters",
        f"Left: differences with {LEVEL:.0%} intervals; ticks are seeds. Right: errors of the "
        f"gradient of one window during training with {watched.label}.",
        [(0.222, 0.19, 0.295, 0.66), (0.59, 0.19, 0.24, 0.66)],
    )
    paired = [(name, other) for name, other in references.items() if other in references]
    _differences(left, paired, rows, seeds)
    if found:
        _along_the_training(right, found)
    return figure


def _differences(
    axes: Axes, paired: Sequence[tuple[str, Any]], rows: Sequence[Row], seeds: Sequence[int]
) -> None:
    # Logarithmic beyond ±_LINEAR: a seed that diverges must not squeeze the others into one dot.
    axes.set_xscale("symlog", linthresh=_LINEAR, linscale=2, subs=range(2, 10))
    grey, better, worse = COLOURS[7], COLOURS[1], COLOURS[3]
    for y, (name, reference) in enumerate(paired):
        each = paired_differences(rows, name, reference)
        found = difference(each)
        axes.plot(each, np.full(len(each), y - 0.22), "|", color=grey, markersize=9)
        color = grey
        if unfinished(rows, name, reference, seeds):
            text = f"{found.n} of {len(seeds)} seeds, nothing is claimed"
            place = axes.get_yaxis_transform()
            axes.annotate(text, (1, y + 0.3), xycoords=place, ha="right", fontsize=8)
        elif abs(found.mean) > found.half_width:
            color = worse if found.mean > 0 else better
        axes.errorbar(found.mean, y, xerr=found.half_width, fmt="o", color=color, linewidth=2)
    axes.axvline(0, color="black", linewidth=1)
    words = [f"{ARMS[name].label}\nminus {ARMS[other].label}" for name, other in paired]
    axes.set_yticks(range(len(paired)), words)
    axes.set_ylim(max(len(paired), 1) - 0.5, -0.5)
    low, high = axes.get_xlim()
    ticks = [t for t in (-10, -1, -0.1, -0.05, 0, 0.05, 0.1, 1, 10) if low <= t <= high]
    axes.set_xticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    scale = f"linear within ±{_LINEAR:g}, logarithmic beyond"
    axes.set_xlabel(f"test bits per character, paired by seed (left is better)\n{scale}")


def _along_the_training(axes: Axes, rows: Sequence[Row]) -> None:
    steps = np.array([row["time_step"] for row in rows], float)
    edges = np.linspace(0, steps.max() * (1 + 1e-9), _BINS + 1)
    bins = np.searchsorted(edges, steps, side="right") - 1
    biases = [name for name in measured.names(rows) if name.startswith("bias_")]
    lines = {
        name: (f"error of TBPTT {name.removeprefix('bias_')}", color)
        for name, color in zip(biases, itertools.cycle((COLOURS[4], COLOURS[3], COLOURS[5])))
    }
    lines["artbp_noise"] = "noise of ARTBP", COLOURS[0]
    lines["carry_error"] = "carry of older params", COLOURS[7]
    ends = []
    for name, (label, color) in lines.items():
        if name in rows[0]:
            values = np.array([row[name] for row in rows], float)  # NaN for None
            line = [
                np.nanmedian(values[bins == b]) if (bins == b).any() else np.nan
                for b in range(_BINS)
            ]
            axes.plot((edges[:-1] + edges[1:]) / 2000, line, color=color, linewidth=2)
            ends.append((line[-1], label, {"color": color}))
    axes.set(yscale="log", xlabel="time steps, thousands", xlim=(0, edges[-1] / 1000))
    axes.set_ylabel("÷ norm of the window's gradient, median")
    figures.label_ends(axes, ends)
