"""Draws the accuracy against the lag, trained on every lag and on one lag alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.common.arms import Arm
from experiments.common.figures import colors, grid, ink, new_figure, plain_ticks
from experiments.common.report import Row
from experiments.memory.episodes import CHANCE


def make_figure(config: Any, arms: Sequence[Arm], rows: Sequence[Row]) -> Figure:
    """Draws two panels and a key between them; `rows` are those of the table, one for each arm."""
    figure, panels = new_figure(
        (12.4, 5.2),
        "How far the state remembers, where the gradient looks back k2 steps",
        f"LSTM with {config.hidden_size} units: one of 4 items, then distractors. Mean of "
        f"{config.num_seeds} seeds, with the lowest and the highest. Diamond: lag k2, the first "
        "that the gradient does not reach.",
        [(0.058, 0.115, 0.37, 0.66), (0.608, 0.115, 0.37, 0.66)],
    )
    left, right = panels
    left.set_title("Trained on the loss at every lag", loc="left")
    right.set_title("Trained on the loss at that lag alone", loc="left")
    every, own = np.arange(1, config.episode_length), np.array(config.lags)
    # Broad below, narrow above: lines that lie on each other can all be seen.
    widths = np.linspace(7.0, 2.0, len(arms))
    # A little to the left or right, so that bars at the same lag stand side by side.
    shifts = np.linspace(0.96, 1.04, len(arms))
    for i, (arm, color) in enumerate(colors(arms).items()):
        alone = arm.name == "readout_alone"
        pen: dict[str, Any] = {"color": color, "linestyle": (0, (4, 2)) if alone else "-"}
        every_lag = np.array(rows[i]["accuracy_every_lag"])[:, 1:]
        left.plot(every, every_lag.mean(0), linewidth=2 if alone else widths[i], **pen)
        left.fill_between(every, every_lag.min(0), every_lag.max(0), color=color, alpha=0.15, lw=0)
        own_lag, lags = np.array(rows[i]["accuracy_own_lag"]), shifts[i] * own
        right.plot(lags, own_lag.mean(0), marker=".", linewidth=2, **pen)
        right.vlines(lags, own_lag.min(0), own_lag.max(0), color=color, linewidth=1.2)
        for axes, xs, accuracy in ((left, every, every_lag), (right, lags, own_lag)):
            if arm.name == "tbptt" and xs[0] <= arm.length <= xs[-1]:
                height = np.interp(np.log(arm.length), np.log(xs), accuracy.mean(0))
                diamond: Any = {"marker": "D", "markersize": 9, "markeredgecolor": "black"}
                axes.plot(arm.length, height, color=color, zorder=5, **diamond)
        place = 0.70 - 0.065 * i
        figure.add_artist(Line2D((0.436, 0.452), [place] * 2, linewidth=2, **pen))
        words: Any = {"fontweight": "bold", "fontsize": 9, "va": "center"}
        figure.text(0.459, place, arm.label, color=ink(color), **words)
    for axes in panels:
        axes.set(xscale="log", xlabel="lag d in steps", ylabel="test accuracy")
        axes.set(xlim=(0.93, config.episode_length * 1.05), ylim=(0.15, 1.03))
        axes.axhline(CHANCE, color="0.45", linewidth=1, linestyle=(0, (1, 2)))
        axes.text(1, CHANCE - 0.012, f"chance, {CHANCE:.0%}", va="top", color="0.3", fontsize=9)
        plain_ticks(axes.xaxis, [1, 2, 4, 8, 16, 32, 64])
        plain_ticks(axes.yaxis, [0.2, 0.4, 0.6, 0.8, 1.0], "{:.0%}")
        grid(axes)
    together = coinciding(rows)
    if len(together) > 1:
        lowest = min(np.mean(row["accuracy_every_lag"], axis=0)[1:].min() for row in together)
        height = "100%" if lowest == 1 else f"{np.floor(1000 * lowest) / 10:g}% or more"
        text = f"{len(together)} lines on one another,\nat {height} at every lag:\n"
        text += "\n".join(row["label"] for row in together)
        left.text(1, 0.955, text, va="top", color="0.3", fontsize=9, linespacing=1.4)
    return figure


def coinciding(rows: Sequence[Row], lowest: float = 0.99) -> list[Row]:
    """Returns the arms with a mean accuracy of at least `lowest` at every lag from 1 on."""
    return [row for row in rows if np.mean(row["accuracy_every_lag"], axis=0)[1:].min() >= lowest]
