"""Curves beside the authors' own, and bits against the number of steps since a zero state."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.common import figures
from experiments.common.figures import COLOURS
from experiments.common.report import Row
from experiments.ptb_authors.report import of_arm
from experiments.ptb_authors.rows import authors_curves
from experiments.ptb_authors.since_zero import EDGES, SEGMENT

_BLUE, _GREEN, _, _VERMILLION, _ORANGE, _PINK, _, _GREY = COLOURS
# Solid from the zero state, dashed with a carried one.
_ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "tbptt-zero": ("TBPTT 50, from zero", {"color": _VERMILLION, "linestyle": "-"}),
    "tbptt-offset-zero": ("TBPTT 50, drawn offset", {"color": _GREEN, "linestyle": "-"}),
    "artbp-zero": ("ARTBP 50, from zero", {"color": _BLUE, "linestyle": "-"}),
    "uncompensated-zero": ("not compensated, from zero", {"color": _ORANGE, "linestyle": "-"}),
    "tbptt-carried": ("TBPTT 50, carried", {"color": _VERMILLION, "linestyle": "--"}),
    "artbp-carried": ("ARTBP 50, carried", {"color": _BLUE, "linestyle": "--"}),
    "uncompensated-carried": ("not compensated, carried", {"color": _ORANGE, "linestyle": "--"}),
    "unbiased-carried": ("unbiased TBPTT 50, carried", {"color": _PINK, "linestyle": "--"}),
}


def draw(rows: Sequence[Row], description: str) -> Figure:
    """Four panels of the runs in one setting, see `report.settings`."""
    if any(row["scores"] and not row["results"] for row in rows):
        description += " Lower panels: of a run that is not finished, its best params so far."
    found = {arm: list(of_arm(rows, arm).values()) for arm in _ARMS}
    found = {arm: runs for arm, runs in found.items() if runs}
    description += "\nSolid lines: segments from the zero state."
    if any(_ARMS[arm][1]["linestyle"] == "--" for arm in found):
        description += " Dashed: with a carried state."
    figure, axes = figures.new_figure(
        (14, 9.4),
        "Penn Treebank characters as the authors of ARTBP trained",
        description,
        [
            (0.055, 0.53, 0.25, 0.345),
            (0.57, 0.53, 0.25, 0.345),
            (0.055, 0.07, 0.25, 0.36),
            (0.57, 0.07, 0.25, 0.36),
        ],
    )
    _curves(axes[0], found)
    _differences(axes[1], rows)
    scored = {a: [row for row in runs if row["scores"]] for a, runs in found.items()}
    scored = {arm: runs for arm, runs in scored.items() if runs}
    for panel, text in ((axes[2], "valid"), (axes[3], "train")):
        _since_zero(panel, scored, text)
    return figure


def _mean(curves: Sequence[Sequence[float]]) -> np.ndarray:
    """The mean over runs, as far as all of them got."""
    shortest = min(map(len, curves))
    return np.mean([curve[:shortest] for curve in curves], axis=0)


def _curves(axes: Any, found: dict[str, list[Row]]) -> None:
    ends, highest = [], 0.0
    for method, color in (("tbptt", _VERMILLION), ("artbp", _BLUE)):
        runs = authors_curves()[method]["valid"]
        epochs, mean, spread = 1 + np.arange(runs.shape[1]), runs.mean(0), runs.std(0, ddof=1)
        axes.fill_between(epochs, mean - spread, mean + spread, color=color, alpha=0.25, lw=0)
        ends.append((mean[-1], f"{method.upper()}, the authors' 6 runs", {"color": color}))
        highest = max(highest, mean[1])
    for arm, runs in found.items():
        words, pen = _ARMS[arm]
        mean = _mean([row["valid_bpc"] for row in runs])
        axes.plot(1 + np.arange(len(mean)), mean, linewidth=1.8, **pen)
        ends.append((mean[-1], words, pen))
        highest = max(highest, mean[min(1, len(mean) - 1)])
    axes.set(xlabel="epoch", ylabel="bits per character", xlim=(1, 20), title="Validation text")
    axes.set_ylim(top=highest)
    figures.plain_ticks(axes.xaxis, (1, 5, 10, 15, 20))
    figures.grid(axes)
    figures.label_ends(axes, ends)


def _differences(axes: Any, rows: Sequence[Row]) -> None:
    """Each arm minus TBPTT with the same start: the mean over seeds, and every seed, thin."""
    authors = authors_curves()
    mean = authors["artbp"]["valid"].mean(0) - authors["tbptt"]["valid"].mean(0)
    axes.plot(1 + np.arange(len(mean)), mean, color=_GREY, linewidth=2)
    ends = [(mean[-1], "ARTBP, the authors", {"color": _GREY})]
    for arm, (words, pen) in _ARMS.items():
        base = f"tbptt-{arm.rpartition('-')[2]}"
        if arm == base:
            continue
        ours, theirs = of_arm(rows, arm), of_arm(rows, base)
        pairs = [
            zip(ours[seed]["valid_bpc"], theirs[seed]["valid_bpc"], strict=False)
            for seed in sorted(ours.keys() & theirs)
        ]
        curves = [[a - b for a, b in pair] for pair in pairs]
        for curve in curves:
            axes.plot(1 + np.arange(len(curve)), curve, linewidth=0.8, alpha=0.4, **pen)
        if curves:
            mean = _mean(curves)
            axes.plot(1 + np.arange(len(mean)), mean, linewidth=1.8, **pen)
            ends.append((mean[-1], words, pen))
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set(xlabel="epoch", ylabel="bits per character", xlim=(1, 20), ylim=(-0.05, 0.05))
    axes.set_title("Validation text, minus TBPTT 50, same start and seed")
    figures.plain_ticks(axes.xaxis, (1, 5, 10, 15, 20))
    figures.grid(axes)
    figures.label_ends(axes, ends)


def _since_zero(axes: Any, scored: dict[str, list[Row]], text: str) -> None:
    ends = []
    for arm, runs in scored.items():
        words, pen = _ARMS[arm]
        mean = _mean([row["scores"][text]["since_zero"] for row in runs])
        middles = [(low + 1 + high) / 2 for low, high in itertools.pairwise(EDGES)]
        axes.plot(middles[: len(mean)], mean, "o", markersize=3, linewidth=1.6, **pen)
        ends.append((mean[-1], words, pen))
    axes.axvline(SEGMENT, color="0.5", linewidth=0.8)
    title = {"valid": "Validation text", "train": "Training text"}[text]
    axes.set(xscale="log", xlabel="steps since the zero state", ylabel="bits per character")
    axes.set_title(title)
    if ends:
        last = [height for height, *_ in ends]
        axes.set_ylim(min(last) - 0.05, max(last) + 0.25)
    figures.plain_ticks(axes.xaxis, (1, 10, 50, 200, 1000))
    figures.grid(axes)
    figures.label_ends(axes, ends)
