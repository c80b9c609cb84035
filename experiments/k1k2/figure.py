"""Draws the modes against updates and against time, and the two sweeps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.common.figures import COLOURS, grid, new_figure, plain_ticks
from experiments.common.report import Row
from experiments.k1k2.report import MODE_WORDS, by_arm
from experiments.k1k2.training import bin_edges

# Broad below, narrow and dashed above: curves that lie on each other can all be seen.
_PEN_OF: dict[str, dict[str, Any]] = {
    "stored": {"color": COLOURS[0], "linewidth": 5.0, "alpha": 0.45},
    "past_weights": {"color": COLOURS[4], "linewidth": 2.2},
    "reforward": {"color": COLOURS[3], "linewidth": 1.6, "linestyle": (0, (3, 2))},
}


def make_figure(config: Any, rows: Sequence[Row]) -> Figure:
    """Draws the three panels."""
    figure, (updates, seconds, sweeps) = new_figure(
        (13.2, 5.0),
        "TBPTT(k1, k2) on next-character prediction: an update every k1 steps, looking back k2",
        f"{rows[0]['text']}, LSTM with {config.hidden_size} units, batch {config.batch}. Mean of "
        f"{config.num_seeds} seeds; learning rate tuned for each line and point.",
        [(left, 0.125, 0.265, 0.63) for left in (0.052, 0.38, 0.712)],
    )
    _draw_modes(updates, config, rows, against="updates")
    _draw_modes(seconds, config, rows, against="seconds")
    updates.set_ylabel("bits per character")
    _draw_sweeps(sweeps, config, rows)
    return figure


def _draw_modes(axes: Axes, config: Any, rows: Sequence[Row], against: str) -> None:
    axes.set_title(f"Three modes of TBPTT({config.k1}, {config.k2}), against {against}", loc="left")
    axes.set(xscale="log", yscale="log", xlabel=against)
    curves = []
    for mode, pen in _PEN_OF.items():
        row = by_arm(rows)[config.k1, config.k2, mode]
        unit, words = 1.0, MODE_WORDS[mode]
        if against == "seconds":
            unit = row["seconds_per_update"]
            words += f"\n{row['time_ratio']:.2f} × the time per update"
        curves.append(row["curve_bits"])
        axes.plot(bin_edges(config)[1:] / config.k1 * unit, curves[-1], label=words, **pen)
    # A legend, not labels at the ends: the three lines end in one point.
    axes.legend(frameon=False, loc="upper right", fontsize=9)
    low, high = np.min(curves) * 0.95, np.max(curves) * 1.2
    axes.set_ylim(low, high)
    plain_ticks(axes.yaxis, [t for t in (1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8) if low <= t <= high])
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    grid(axes)


def _draw_sweeps(axes: Axes, config: Any, rows: Sequence[Row]) -> None:
    k1, k2 = config.k1, config.k2
    lines = (
        (f"k1 varies, k2 = {k2}", COLOURS[5], config.k1_sweep, [(k, k2) for k in config.k1_sweep]),
        (f"k2 varies, k1 = {k1}", COLOURS[1], config.k2_sweep, [(k1, k) for k in config.k2_sweep]),
    )
    for words, color, xs, pairs in lines:
        losses = np.array([by_arm(rows)[(*pair, "stored")]["last_quarter_bits"] for pair in pairs])
        axes.plot(xs, losses.mean(1), color=color, linewidth=2.2, marker="o", label=words)
        axes.plot(xs, losses, "_", color=color, markersize=7, alpha=0.6)
    axes.margins(y=0.2)  # room for the legend
    axes.legend(frameon=False, loc="upper right", ncols=2, fontsize=9)
    axes.set(xscale="log", xlabel="k1 or k2 in steps")
    axes.set_title("Rarer updates, longer windows", loc="left")
    axes.set_ylabel(f"bits per character, last quarter of {config.num_steps:,} steps")
    plain_ticks(axes.xaxis, sorted({*config.k1_sweep, *config.k2_sweep}))
    grid(axes, "y")
