"""The table and the figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.common.figures import grid, label_ends, new_figure
from experiments.common.report import Column, Row, median_and_range
from experiments.common.tuning import rate_text
from experiments.long_memory.config import task_of
from experiments.tasks.copy_memory import NUM_SYMBOLS


def columns() -> list[Column]:
    """Of the table."""

    def last(row: Row) -> str:
        return median_and_range([losses[-1] for losses in row["losses"]])

    def recall(row: Row) -> str:
        return median_and_range([100 * share for share in row["recall"]], "{:.1f}")

    return [
        ("training", "{label}"),
        ("learning rate", lambda row: rate_text(row["learning_rate"], row["rate_at_edge"])),
        ("last loss, nats per step", last),
        ("recalled symbols, %", recall),
    ]


def note(config: Any) -> str:
    """What the table cannot hold."""
    task = task_of(config)
    return f"""\
Copy memory, lag {config.lag}: ten symbols, {config.lag} blank steps, recall. Without memory: loss \
{task.baselines["memoryless"]:.3f}, {100 / NUM_SYMBOLS:g} % of the symbols. Median [smallest, \
largest] of {config.num_seeds} seeds; the loss is the mean over the last of {config.num_points} \
parts of the training, the recall is on {config.test_sequences * config.batch} new sequences. \
LSTM, {config.hidden_size} units, {config.num_sequences:,} batches of {config.batch} sequences of \
{task.sequence_length} steps. TBPTT makes an update every {config.truncation_length} steps, the \
others one per sequence. SAB (`artbp.cells.sab`): boundaries every {config.truncation_length} \
steps, a state stored every {config.store_every} steps, top_k = {config.top_k}. Adam, gradients \
clipped to norm {config.max_norm:g}; learning rate: the best last loss of \
{", ".join(f"{rate:g}" for rate in config.learning_rates)} in {config.num_tuning_runs} run(s) that \
are not reported (\\*: at the edge of the grid)."""


def make_figure(config: Any, rows: Sequence[Row]) -> Figure:
    """Losses against the number of sequences."""
    figure, (axes,) = new_figure(
        (7.6, 4.9),
        f"Copy memory, lag {config.lag}",
        f"Loss in training: median, smallest and largest of {config.num_seeds} seeds, each method "
        "at its best learning rate.\nDotted: the best loss without memory.",
        [(0.10, 0.12, 0.68, 0.66)],
    )
    ends = np.linspace(0, config.num_sequences, config.num_points + 1)[1:]
    labels, lowest = [], []
    for row in rows:
        losses = np.array(row["losses"])
        middle = np.median(losses, axis=0)
        axes.plot(ends, middle, color=row["color"], linewidth=1.8)
        axes.fill_between(ends, losses.min(0), losses.max(0), color=row["color"], alpha=0.15, lw=0)
        lowest.append(losses.min())
        labels.append((middle[-1], row["label"], {"color": row["color"]}))
    memoryless = task_of(config).baselines["memoryless"]
    axes.axhline(memoryless, color="0.45", linewidth=1, linestyle=(0, (1, 2)))
    axes.set(xlabel="batches of sequences", ylabel="loss, nats per step")
    axes.set(xlim=(0, config.num_sequences), ylim=(0.9 * min(lowest), 1.3 * memoryless))
    label_ends(axes, labels)
    grid(axes)
    return figure
