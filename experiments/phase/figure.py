"""The map of predicted winners with what was observed, and predicted against observed losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from experiments.common.arms import Arm
from experiments.common.figures import COLOURS, STYLE, colors
from experiments.phase.study import Map, Point

# Of the arms, in their order.
_MARKERS = ("s", "D", "o", "^")


def draw(config: Any, arms: Sequence[Arm], predicted: Map, points: Sequence[Point]) -> Figure:
    """Both panels."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.5, 5.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        _map(left, config, arms, predicted, points)
        _losses(right, arms, points)
        figure.suptitle(
            "Which truncation wins depends on memory and batch size, and can be predicted",
            x=0.01,
            ha="left",
            fontweight="bold",
        )
        return figure


def _map(
    axes: Any, config: Any, arms: Sequence[Arm], predicted: Map, points: Sequence[Point]
) -> None:
    winner = predicted.excess.argmin(axis=0)
    # The paler the closer the other kind: white at a tie, full where it has four times the excess.
    unbiased = np.array([arm.claims.unbiased for arm in arms])
    kinds = [predicted.excess[unbiased == kind].min(axis=0) for kind in (True, False)]
    lead = np.clip(np.abs(np.log(kinds[0] / kinds[1])) / np.log(4), 0, 1)
    own = list(colors(arms).values())
    colours = np.array([to_rgb(colour) for colour in own])[winner]
    tint = (0.12 + 0.58 * lead)[..., None]
    axes.pcolormesh(
        predicted.memories,
        predicted.batches,
        np.swapaxes(tint * colours + (1 - tint), 0, 1),
        shading="nearest",
        rasterized=True,
    )
    axes.set(xscale="log", yscale="log")
    axes.set(xlabel="memory of the system ÷ L0", ylabel="rows of a batch")
    axes.set_xticks(config.trained_memories, [f"{m:g}" for m in config.trained_memories])
    axes.set_yticks(config.trained_batches, [f"{b:g}" for b in config.trained_batches])
    axes.minorticks_off()
    for point in points:
        i = point.observed_winner
        axes.plot(
            point.memory,
            point.batch,
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=11,
            color=own[i],
            markeredgecolor="black",
            markeredgewidth=1.0,
            clip_on=False,
        )
        if point.verdict != "yes":
            text = "tie" if point.verdict == "tie" else "otherwise"
            axes.annotate(
                text, (point.memory, point.batch), (0, 10), textcoords="offset points", ha="center"
            )
    for i in np.unique(winner):
        at = np.argwhere(winner == i)
        x, y = at[len(at) // 2] if len(at) < 3 else _inside(winner == i)
        axes.annotate(
            arms[i].label.replace(" (", "\n("),
            (predicted.memories[x], predicted.batches[y]),
            ha="center",
            va="center",
            color="black",
            fontsize=9,
            bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": own[i]},
        )
    axes.set_title(
        "Colour: predicted winner, paler where its lead over the other kind is small.\n"
        "Marks: least mean loss of the trainings; tie: ARTBP and TBPTT not told apart",
        fontsize=10,
    )


def _inside(region: np.ndarray) -> np.ndarray:
    """The cell of a region that is farthest from cells that are not, and from the border."""
    outside = np.argwhere(~np.pad(region, 1)) - 1
    cells = np.argwhere(region)
    # Labels are wide: along the memory, distances count less.
    away = np.abs(cells[:, None, :] - outside[None, :, :]) * np.array([0.5, 1.0])
    return cells[np.argmax(np.sqrt((away**2).sum(axis=-1)).min(axis=1))]


def _losses(axes: Any, arms: Sequence[Arm], points: Sequence[Point]) -> None:
    own = list(colors(arms).values())
    for i, arm in enumerate(arms):
        shown = [p for p in points if np.isfinite(p.predicted[i].excess)]
        x = [p.predicted[i].excess for p in shown]
        y = np.array([p.trained[i].excess.mean() for p in shown])
        errors = np.array([p.trained[i].excess.std(ddof=1) for p in shown])
        errors /= np.sqrt([len(p.trained[i].excess) for p in shown])
        axes.errorbar(
            x,
            y,
            [np.minimum(2 * errors, 0.98 * y), 2 * errors],
            fmt=_MARKERS[i % len(_MARKERS)],
            color=own[i],
            markeredgecolor="black",
            markeredgewidth=0.5,
            label=arm.label,
            linewidth=1,
        )
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.set(xscale="log", yscale="log")
    low = min(p.predicted[i].excess for p in points for i in range(len(arms))) / 1.5
    axes.plot([low, high], [low, high], color=COLOURS[7], linewidth=1, zorder=0)
    axes.annotate("equal", (high / 1.6, high / 1.6), (6, -14), textcoords="offset points")
    axes.set(xlabel="excess loss, predicted", ylabel="excess loss, observed (± 2 standard errors)")
    axes.legend(frameon=False, loc="upper left")
    axes.set_title("Predicted from bias and variance alone, each at its best rate", fontsize=10)
