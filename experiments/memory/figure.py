"""The figure: accuracy against lag, trained on every lag and on one lag alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.common.arms import Arm
from experiments.common.figures import colors, grid, ink, new_figure, plain_ticks
from experiments.common.report import Row
from experiments.memory.episodes import CHANCE
from experiments.memory.report import TRAININGS


def make_figure(config: Any, arms: Sequence[Arm], rows: Sequence[Row]) -> Figure:
    """Two panels and a key between them; `rows` of the table, one for each arm."""
    figure, (left, right) = new_figure(
        (12.4, 5.2),
        "How far the state remembers, where the gradient looks back k2 steps",
        f"LSTM with {config.hidden_size} units: one of 4 items, then distractors. Mean of "
        f"{config.num_seeds} seeds, with the lowest and the highest. Diamond: lag k2, the first "
        "that the gradient does not reach.",
        [(0.058, 0.115, 0.37, 0.66), (0.608, 0.115, 0.37, 0.66)],
    )
    every = np.arange(1, config.episode_length)
    pens = [_pen(arm, color) for arm, color in colors(arms).items()]
    # Broad below, narrow above: lines that lie on each other can all be seen.
    widths = np.linspace(7.0, 2.0, len(arms))
    # A little to the left or right, so that bars at the same lag stand side by side.
    shifts = np.linspace(0.96, 1.04, len(arms))
    for arm, row, pen, width, shift in zip(arms, rows, pens, widths, shifts, strict=True):
        every_lag, own_lag = (np.array(row[f"accuracy_{kind}"]) for kind in TRAININGS)
        broad = pen if arm.name == "readout_alone" else pen | {"linewidth": width}
        _draw_band(left, every, every_lag[:, 1:], arm, broad)
        _draw_bars(right, shift * np.array(config.lags), own_lag, arm, pen)
    left.set_title("Trained on the loss at every lag", loc="left")
    right.set_title("Trained on the loss at that lag alone", loc="left")
    for axes in (left, right):
        _finish(axes, config)
    _name_coinciding(left, rows)
    _draw_key(figure, arms, pens)
    return figure


def _pen(arm: Arm, color: str) -> dict[str, Any]:
    linestyle = (0, (4, 2)) if arm.name == "readout_alone" else "-"
    return {"color": color, "linestyle": linestyle, "linewidth": 2}


def _draw_band(
    axes: Axes, lags: np.ndarray, accuracy: np.ndarray, arm: Arm, pen: dict[str, Any]
) -> None:
    axes.plot(lags, accuracy.mean(0), **pen)
    low, high = accuracy.min(0), accuracy.max(0)
    axes.fill_between(lags, low, high, color=pen["color"], alpha=0.15, linewidth=0)
    _mark_k2(axes, lags, accuracy, arm, pen)


def _draw_bars(
    axes: Axes, lags: np.ndarray, accuracy: np.ndarray, arm: Arm, pen: dict[str, Any]
) -> None:
    axes.plot(lags, accuracy.mean(0), marker=".", **pen)
    axes.vlines(lags, accuracy.min(0), accuracy.max(0), color=pen["color"], linewidth=1.2)
    _mark_k2(axes, lags, accuracy, arm, pen)


def _mark_k2(
    axes: Axes, lags: np.ndarray, accuracy: np.ndarray, arm: Arm, pen: dict[str, Any]
) -> None:
    """A diamond on the line at the first lag that the gradient does not reach."""
    if arm.name == "tbptt" and lags[0] <= arm.length <= lags[-1]:
        height = np.interp(np.log(arm.length), np.log(lags), accuracy.mean(0))
        style: Any = {"markersize": 9, "markeredgecolor": "black", "zorder": 5}
        axes.plot(arm.length, height, "D", color=pen["color"], **style)


def coinciding(rows: Sequence[Row], lowest: float = 0.99) -> list[Row]:
    """The arms with a mean accuracy of at least `lowest` at every lag from 1 on."""
    return [row for row in rows if np.mean(row["accuracy_every_lag"], axis=0)[1:].min() >= lowest]


def _name_coinciding(axes: Axes, rows: Sequence[Row]) -> None:
    """Under the lines that lie on one another at the top: which they are, and how high."""
    together = coinciding(rows)
    if len(together) < 2:
        return
    means = [np.mean(row["accuracy_every_lag"], axis=0)[1:].min() for row in together]
    height = "100%" if min(means) == 1 else f"{np.floor(1000 * min(means)) / 10:g}% or more"
    words = "\n".join(row["label"] for row in together)
    axes.text(
        1,
        0.955,
        f"{len(together)} lines on one another,\nat {height} at every lag:\n{words}",
        va="top",
        color="0.3",
        fontsize=9,
        linespacing=1.4,
    )


def _finish(axes: Axes, config: Any) -> None:
    axes.set(xscale="log", xlabel="lag d in steps", ylabel="test accuracy")
    axes.set(xlim=(0.93, config.episode_length * 1.05), ylim=(0.15, 1.03))
    axes.axhline(CHANCE, color="0.45", linewidth=1, linestyle=(0, (1, 2)))
    axes.text(1, CHANCE - 0.012, f"chance, {CHANCE:.0%}", va="top", color="0.3", fontsize=9)
    plain_ticks(axes.xaxis, [1, 2, 4, 8, 16, 32, 64])
    plain_ticks(axes.yaxis, [0.2, 0.4, 0.6, 0.8, 1.0], "{:.0%}")
    grid(axes)


def _draw_key(figure: Figure, arms: Sequence[Arm], pens: Sequence[dict[str, Any]]) -> None:
    for i, (arm, pen) in enumerate(zip(arms, pens, strict=True)):
        height = 0.70 - 0.065 * i
        figure.add_artist(Line2D((0.436, 0.452), [height] * 2, **pen))
        style: Any = {"fontweight": "bold", "fontsize": 9, "va": "center"}
        figure.text(0.459, height, arm.label, color=ink(pen["color"]), **style)
