"""The table and the figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.attentive_backtracking.config import ARMS
from experiments.attentive_backtracking.training import recalled
from experiments.common.figures import grid, label_ends, new_figure, plain_ticks
from experiments.common.report import Column, Row, select
from experiments.common.tuning import rate_text, rates_text
from experiments.tasks.copy_memory import NUM_SYMBOLS

CHANCE = 100 / NUM_SYMBOLS


def _last(row: Row) -> str:
    return recalled([100 * shares[-1] for shares in row["shares"]])


COLUMNS: list[Column] = [
    ("symbols", "{num_recalled}"),
    ("gradient", "{label}"),
    ("learning rate", lambda row: rate_text(row["learning_rate"], row["rate_at_edge"])),
    ("recalled after training, %", lambda row: recalled(row["accuracy"])),
    ("recalled in the last part of the training, %", _last),
]


def note(config: Any) -> str:
    """What the table cannot hold."""
    return f"""\
Copy memory: symbols of eight kinds, a lag of {config.lag} blank steps, then recall in order; \
a guess recalls {CHANCE:g} %. Recalled: of {config.test_sequences:,} new sequences, median \
[smallest, largest] of {config.num_seeds} seeds. Every arm makes {config.num_updates:,} updates by \
Adam, each from {config.batch} new sequences, with {config.hidden_size} units, a forget bias of \
{config.forget_bias:g} and gradients clipped to a norm of {config.clip_norm:g}. The loss counts at \
the recalled symbols. SAB stores a state every {config.store_every} steps, reads at most \
{config.top_k - 1} of them, and is cut every {config.truncation_length} steps, as is TBPTT. \
Without jumps: the same cell, and the gradient to the stored states is stopped. Learning rate: the \
one of {rates_text(config)} with the smallest loss in the last quarter of \
{config.num_tuning_runs} run(s) that are not reported (\\*: at the edge of the grid)."""


def make_figure(config: Any, rows: Sequence[Row]) -> Figure:
    """Draws the share of recalled symbols against updates, a panel per number of symbols."""
    number = len(config.num_recalled)
    width = 5.2 * number + 0.6
    figure, panels = new_figure(
        (width, 4.3),
        "Copy memory with the gradient cut every few steps",
        f"Symbols recalled in training after a lag of {config.lag} steps: a line for each of "
        f"{config.num_seeds} seeds. Dashed: a guess.",
        [((0.6 + 5.2 * i) / width, 0.13, 3.1 / width, 0.63) for i in range(number)],
    )
    part = config.num_updates // config.num_points
    updates = part * (np.arange(config.num_points) + 0.5)
    for axes, symbols in zip(panels, config.num_recalled, strict=True):
        ends = []
        for row in select(rows, num_recalled=symbols):
            color = ARMS[row["arm"]].color
            shares = 100 * np.array(row["shares"])
            axes.plot(updates, shares.T, color=color, linewidth=1.4, alpha=0.8)
            if np.isfinite(end := np.median(shares[:, -1])):
                ends.append((end, row["label"], {"color": color}))
        axes.axhline(CHANCE, color="0.45", linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlim=(0, config.num_updates), ylim=(0, 103), xlabel="updates")
        axes.set_title(f"{symbols} symbols", fontweight="bold")
        plain_ticks(axes.yaxis, [0, 25, 50, 75, 100], "{:g} %")
        label_ends(axes, ends)
        grid(axes)
    return figure
