"""The table and the figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.auxiliary.problems import PROBLEMS
from experiments.common.figures import COLOURS, grid, new_figure, plain_ticks
from experiments.common.report import Column, Row, interval, select
from experiments.common.tuning import rate_text, rates_text

_COLORS = {None: COLOURS[7], "before": COLOURS[0], "after": COLOURS[3]}


def percent(values: Sequence[float]) -> str:
    """Formats the mean of shares and the half-width of its interval in %; ∞ for a NaN."""
    if not np.isfinite(values).all():
        return "not finite"
    mean, half = interval(100 * np.array(values))
    return f"{mean:.1f} ± {half:.1f}"


def gain(row: Row) -> str:
    """Formats the paired differences from the training without auxiliary losses."""
    return percent(row["gain"]) if row["window"] else "–"


COLUMNS: list[Column] = [
    ("problem", lambda row: PROBLEMS[row["problem"]].label),
    ("main loss", "{truncation}"),
    ("auxiliary loss", "{label}"),
    ("learning rate", lambda row: rate_text(row["learning_rate"], row["rate_at_edge"])),
    ("last main loss", lambda row: f"{np.mean(row['loss']):.3f}"),
    ("test accuracy, %", lambda row: percent(row["accuracy"])),
    ("gain by the auxiliary loss, points", gain),
]


def note(config: Any) -> str:
    """What the table cannot hold."""
    return f"""\
Mean of {config.num_seeds} seeds ± the half-width of its 95 % interval by Student's t. Gain: of \
pairs of runs with the same first main network and the same data. LSTM with {config.hidden_size} \
units, batch {config.batch}, Adam; a training reads {config.num_sequences} sequences in each row. \
The loss counts at the last step of a sequence only. "Last main loss" is that of the last quarter \
of a training. At one random anchor in each sequence a second LSTM, started with the carry there, \
predicts {config.window_length} inputs: those before the anchor (r) or after it (p). Its loss has \
weight {config.weight:g}, and its gradient goes back through {config.auxiliary_truncation} steps \
of the main network, whatever the truncation of the main loss. There is no pretraining. Anchors \
are the same for all seeds. Test: 2,048 new sequences, or the 297 images that no training sees. \
Learning rate: of {rates_text(config)}, the one with the \
smallest last main loss in {config.num_tuning_runs} other run (\\*: at the edge of the grid)."""


def make_figure(config: Any, rows: Sequence[Row]) -> Figure:
    """Draws the test accuracies of all runs, a panel for each problem."""
    number = len(config.problems)
    width = 4.1 * number + 1.9
    figure, panels = new_figure(
        (width, 3.6),
        "Auxiliary losses where the only loss is at the end",
        f"Test accuracy of each of {config.num_seeds} seeds; bar: their mean.",
        [((0.7 + 4.1 * i) / width, 0.14, 3.5 / width, 0.58) for i in range(number)],
    )
    shown = {}
    for axes, name in zip(panels, config.problems, strict=True):
        of_problem = select(rows, problem=name)
        for i, row in enumerate(of_problem):
            place, accuracy = i + (i >= 3), np.array(row["accuracy"])
            color = shown[row["label"]] = _COLORS[row["window"]]
            axes.plot(np.full(len(accuracy), place), accuracy, "o", color=color, alpha=0.6)
            axes.hlines(accuracy.mean(), place - 0.35, place + 0.35, color=color, lw=2.5)
        chance = 1 / PROBLEMS[name].num_classes
        axes.axhline(chance, color="0.45", linewidth=1, linestyle=(0, (1, 2)))
        axes.set(xlim=(-0.7, 6.7), ylim=(0, 1.03))
        axes.set_xticks([1, 5], ["full BPTT", f"TBPTT {config.short_window}"])
        plain_ticks(axes.yaxis, [0, 0.25, 0.5, 0.75, 1], "{:.0%}")
        axes.set_title(PROBLEMS[name].label, fontweight="bold")
        grid(axes, "y")
    for i, (label, color) in enumerate(shown.items()):
        place = {"transform": panels[-1].transAxes, "color": color, "fontweight": "bold"}
        panels[-1].text(1.03, 0.9 - 0.12 * i, label, fontsize=9.5, **place)
    return figure
