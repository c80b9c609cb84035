"""For each problem: where each method pushes the rate, along two lines, and what it learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.figures import COLOURS, STYLE
from experiments.common.report import Row
from experiments.hyperparameters.report import (
    LINE_WORDS,
    along,
    part,
    ran_off,
    sign_known,
    turning_rate,
    verdict,
)

BLUE, GREEN, SKY, VERMILLION, ORANGE, PINK, BLACK, GREY = COLOURS
WRONG = VERMILLION
TITLES = {"constant": "A constant rate", "end": "The rate at the end of the schedule"}
# Of loss over the grid's best: how dark the ground is.
LEVELS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


def draw(config: Any, rows: Sequence[Row]) -> Figure:
    """The figure; from the rows alone."""
    grids = part(rows, "landscape")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(15, 0.85 + 4.65 * len(grids)))
        height = figure.get_figheight()
        title = "Short windows push a learning rate the wrong way; ARTBP on average does not"
        figure.text(0.012, 1 - 0.3 / height, title, fontsize=16, fontweight="bold", va="center")
        subtitle = (
            "The gradient of the training loss in the learning rate, through the inner training. "
            "The number after a method: steps of a segment, for ARTBP on average."
        )
        figure.text(0.012, 1 - 0.52 / height, subtitle, fontsize=10.5, color="0.3", va="top")
        for i, grid in enumerate(grids):
            bottom = 1 - (0.85 + 4.65 * (i + 1) - 0.95) / height
            tall = 2.95 / height
            problem = grid["problem"]
            top = bottom + tall + 0.42 / height
            label = grid["label"]
            words = label[0].upper() + label[1:]
            figure.text(0.012, top, words, fontsize=12, fontweight="bold", color=BLUE)
            for j, line in enumerate(LINE_WORDS):
                axes = figure.add_axes((0.105 + 0.235 * j, bottom, 0.205, tall))
                _signs(axes, rows, problem, line, names=j == 0)
                axes.set_title(TITLES[line], fontweight="bold", fontsize=10.5)
            axes = figure.add_axes((0.605, bottom, 0.2, tall))
            _paths(axes, grid, part(rows, "training", problem), config)
    return figure


def _signs(axes: Axes, rows: Sequence[Row], problem: str, line: str, *, names: bool) -> None:
    """An arrow for each method and rate, to where minus the gradient moves the rate."""
    signs = part(rows, "signs", problem)
    methods = list(dict.fromkeys(r["method"] for r in signs))
    exact = along(rows, problem, line, "full BPTT")
    for place, method in enumerate(methods):
        own = along(rows, problem, line, method)
        for row, truth in zip(own, exact, strict=True):
            known = sign_known(row)
            wrong = verdict(row, truth) == "wrong"
            axes.plot(
                row["rate"],
                place,
                marker=">" if row["slope"] < 0 else "<",
                markersize=9 if wrong else 7,
                color=(WRONG if wrong else "0.62") if known else "white",
                markeredgecolor="black" if wrong else "0.62",
                markeredgewidth=0.8,
            )
    best = turning_rate(exact)
    if best is not None:
        axes.axvline(best, color=BLUE, linewidth=1.8, zorder=0)
        axes.annotate(
            "least loss",
            (best, 0),
            xycoords=("data", "axes fraction"),
            xytext=(-3, 3),
            textcoords="offset points",
            ha="right",
            color=BLUE,
            fontsize=8.5,
            fontweight="bold",
        )
    axes.set(xscale="log", xlabel="learning rate", ylim=(len(methods) - 0.1, -0.6))
    axes.set_yticks(range(len(methods)), methods if names else [""] * len(methods))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    if names:
        axes.text(
            0.0,
            -0.2,
            "Arrows: where a step down the gradient moves the rate.\nHollow: not told from zero.",
            transform=axes.transAxes,
            fontsize=8.5,
            color="0.35",
            va="top",
        )
    else:
        axes.text(
            0.0,
            -0.2,
            "Red, outlined: away from less loss.",
            transform=axes.transAxes,
            fontsize=8.5,
            color=WRONG,
            fontweight="bold",
            va="top",
        )


def colour_of(row: Row) -> str:
    """Of a method: TBPTT in blues and greens, ARTBP in reds, the others apart."""
    if row["kind"] == "artbp":
        return VERMILLION if row["alpha"] < 5 else ORANGE
    if row["kind"] == "tbptt":
        return {4: SKY, 16: BLUE, 64: GREEN}.get(row["length"], BLUE)
    return BLACK if row["kind"] == "bptt" else PINK


def _paths(axes: Axes, grid: Row, trained: Sequence[Row], config: Any) -> None:
    start, end = np.array(grid["start_rates"]), np.array(grid["end_rates"])
    losses = np.array(grid["losses"], float)
    excess = np.where(np.isfinite(losses), losses / grid["best_loss"] - 1, 1e9)
    levels = [*LEVELS, 1e10]
    greys = matplotlib.colormaps["Greys"](np.linspace(0.0, 0.55, len(levels) - 1))
    axes.contourf(start, end, excess.T, levels=levels, colors=greys)
    axes.plot(*grid["best"], "*", color="white", markeredgecolor="black", markersize=16, zorder=6)
    first = config.first_rate
    axes.plot(first, first, "o", color="white", markeredgecolor="black", markersize=8, zorder=6)
    below: Any = {"xytext": (0, -8), "textcoords": "offset points", "ha": "center", "va": "top"}
    axes.annotate("start", (first, first), fontsize=9, fontweight="bold", color="white", **below)
    ordered = sorted(trained, key=lambda row: float(np.median(row["losses"])))
    for row in ordered:
        colour = colour_of(row)
        axes.plot(*np.array(row["median_path"]).T, color=colour, linewidth=2.0, zorder=4)
        ends = np.array(row["rates"])
        axes.plot(*ends.T, "o", color=colour, markeredgecolor="white", markersize=6, zorder=5)
    low = min(end[0], *(0.8 * np.min(row["rates"]) for row in trained))
    axes.set(xscale="log", yscale="log", xlabel="rate at the start", ylabel="rate at the end")
    high = max(start[-1], *(1.2 * np.max(np.array(row["rates"])[:, 0]) for row in trained))
    axes.set(xlim=(start[0], min(high, 10 * start[-1])), ylim=(low, end[-1]))
    axes.set_title("Learned schedules", fontweight="bold", fontsize=10.5)
    right: Any = {"transform": axes.transAxes, "fontsize": 9.5, "va": "center"}
    axes.text(1.04, 0.97, "loss above the best (★)", color="0.3", **right)
    for i, row in enumerate(ordered):
        place = 0.86 - 0.115 * i
        excess_loss = float(np.median(row["losses"])) / grid["best_loss"] - 1
        words = f"{100 * excess_loss:+.1f} %  {row['method']}".replace("-", "−")
        lost = ran_off(row, grid["best_loss"])
        words += f" ({lost} of {len(row['losses'])} off)" if lost else ""
        axes.text(1.04, place, words, color=colour_of(row), fontweight="bold", **right)
    axes.text(
        0.0,
        -0.2,
        f"Lines: median of {config.num_seeds} seeds; dots: each seed at its end; ground: loss, "
        "dark is more.\nOff: loss above twice the best.",
        transform=axes.transAxes,
        fontsize=9,
        color="0.35",
        va="top",
    )
