"""Draws the map of predicted and observed winners, and predicted against observed losses."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from experiments.common.arms import Arm
from experiments.common.figures import COLOURS, colors, new_figure
from experiments.phase.study import Map, Point

# Of the arms, in their order.
_MARKERS = ("s", "D", "o", "^")


def draw(config: Any, arms: Sequence[Arm], predicted: Map, points: Sequence[Point]) -> Figure:
    """Draws both panels."""
    figure, (left, right) = new_figure(
        (11.5, 5.6),
        "Which truncation wins depends on memory and batch size, and can be predicted",
        "Left: colour is the predicted winner, paler where its lead over the other kind is small. "
        "Marks: least mean loss of the trainings; tie: ARTBP and TBPTT\nnot told apart. Right: "
        "predicted from bias and variance alone, each at its best rate.",
        [(0.055, 0.095, 0.46, 0.745), (0.58, 0.095, 0.405, 0.745)],
    )
    pens = [
        {"marker": marker, "color": color, "markeredgecolor": "black"}
        for marker, color in zip(_MARKERS * len(arms), colors(arms).values(), strict=False)
    ]
    _map(left, config, arms, pens, predicted, points)
    _losses(right, arms, pens, points)
    return figure


def _map(
    axes: Axes,
    config: Any,
    arms: Sequence[Arm],
    pens: Sequence[Any],
    predicted: Map,
    points: Sequence[Point],
) -> None:
    winner = predicted.excess.argmin(axis=0)
    # The paler the closer the other kind: white at a tie, full where it has four times the excess.
    unbiased = np.array([arm.claims.unbiased for arm in arms])
    kinds = [predicted.excess[unbiased == kind].min(axis=0) for kind in (True, False)]
    lead = np.clip(np.abs(np.log(kinds[0] / kinds[1])) / np.log(4), 0, 1)
    tint = (0.12 + 0.58 * lead)[..., None]
    full = np.array([to_rgb(pen["color"]) for pen in pens])[winner]
    image = np.swapaxes(tint * full + (1 - tint), 0, 1)
    axes.pcolormesh(
        predicted.memories, predicted.batches, image, shading="nearest", rasterized=True
    )
    axes.set(xscale="log", yscale="log")
    axes.set(xlabel="memory of the system ÷ L0", ylabel="rows of a batch")
    axes.set_xticks(config.trained_memories, [f"{m:g}" for m in config.trained_memories])
    axes.set_yticks(config.trained_batches, [f"{b:g}" for b in config.trained_batches])
    axes.minorticks_off()
    for point in points:
        at = (point.memory, point.batch)
        axes.plot(*at, markersize=11, clip_on=False, **pens[point.observed_winner])
        text = {"yes": "", "tie": "tie", "no": "otherwise"}[point.verdict]
        axes.annotate(text, at, (0, 10), textcoords="offset points", ha="center")
    for i in np.unique(winner):
        x, y = _inside(winner == i)
        axes.annotate(
            arms[i].label,
            (predicted.memories[x], predicted.batches[y]),
            ha="center",
            va="center",
            fontsize=9,
            bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": pens[i]["color"]},
        )


def _inside(region: np.ndarray) -> np.ndarray:
    """Returns the cell of a region that is farthest from other cells and from the border."""
    outside = np.argwhere(~np.pad(region, 1)) - 1
    cells = np.argwhere(region)
    # Labels are wide: along the memory, distances count less.
    away = np.abs(cells[:, None, :] - outside[None, :, :]) * np.array([0.5, 1.0])
    return cells[np.argmax(np.sqrt((away**2).sum(axis=-1)).min(axis=1))]


def _losses(axes: Axes, arms: Sequence[Arm], pens: Sequence[Any], points: Sequence[Point]) -> None:
    for i, arm in enumerate(arms):
        shown = [p for p in points if np.isfinite(p.predicted[i].excess)]
        x = [p.predicted[i].excess for p in shown]
        y = np.array([p.trained[i].excess.mean() for p in shown])
        errors = np.array([p.trained[i].excess.std(ddof=1) for p in shown])
        errors /= np.sqrt([len(p.trained[i].excess) for p in shown])
        bars = [np.minimum(2 * errors, 0.98 * y), 2 * errors]
        axes.errorbar(x, y, bars, label=arm.label, linewidth=0, elinewidth=1, **pens[i])
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])
    low = min(p.predicted[i].excess for p in points for i in range(len(arms))) / 1.5
    axes.set(xscale="log", yscale="log")
    axes.plot([low, high], [low, high], color=COLOURS[7], linewidth=1, zorder=0, label="equal")
    axes.set(xlabel="excess loss, predicted", ylabel="excess loss, observed (± 2 standard errors)")
    axes.legend(frameon=False, loc="upper left")
