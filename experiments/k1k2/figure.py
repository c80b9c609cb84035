"""The figure: the modes against updates and against time, and the two sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.common.figures import COLOURS, grid, new_figure, plain_ticks
from experiments.common.report import Row
from experiments.k1k2.config import MODES
from experiments.k1k2.report import MODE_WORDS
from experiments.k1k2.training import bin_edges

_COLOUR_OF = dict(zip(MODES, (COLOURS[0], COLOURS[4], COLOURS[3]), strict=True))
# Broad below, narrow and dashed above: curves that lie on each other can all be seen.
_PEN_OF: dict[str, dict[str, Any]] = {
    "stored": {"linewidth": 5.0, "alpha": 0.45},
    "past_weights": {"linewidth": 2.2},
    "reforward": {"linewidth": 1.6, "linestyle": (0, (3, 2))},
}


# k1, k2 and mode of an arm.
Key = tuple[int, int, str]


def make_figure(config: Any, rows: Sequence[Row]) -> Figure:
    """Three panels."""
    figure, (updates, seconds, sweeps) = new_figure(
        (13.2, 5.0),
        "TBPTT(k1, k2) on next-character prediction: an update every k1 steps, looking back k2",
        f"{rows[0]['text']}, LSTM with {config.hidden_size} units, batch {config.batch}. Mean of "
        f"{config.num_seeds} seeds; learning rate tuned for each line and point.",
        [(left, 0.125, 0.265, 0.63) for left in (0.052, 0.38, 0.712)],
    )
    row_of = {(row["k1"], row["k2"], row["mode"]): row for row in rows}
    _draw_modes(updates, config, row_of, against="updates")
    _draw_modes(seconds, config, row_of, against="seconds")
    seconds.set_ylabel("")
    _draw_sweeps(sweeps, config, row_of)
    return figure


def _draw_modes(axes: Axes, config: Any, row_of: dict[Key, Row], against: str) -> None:
    axes.set_title(f"Three modes of TBPTT({config.k1}, {config.k2}), against {against}", loc="left")
    axes.set(xscale="log", yscale="log", xlabel=against, ylabel="bits per character")
    ends = bin_edges(config)[1:]
    highest = lowest = 0.0
    for i, mode in enumerate(MODES):
        row = row_of[config.k1, config.k2, mode]
        unit = row["seconds_per_update"] if against == "seconds" else 1.0
        curve = np.array(row["curve_bits"])
        pen = _PEN_OF[mode]
        axes.plot(ends / config.k1 * unit, curve, color=_COLOUR_OF[mode], **pen)
        words = MODE_WORDS[mode]
        if against == "seconds":
            words += f"\n{row['time_ratio']:.2f} × the time per update"
        # A key, not labels at the ends: the three lines end in one point.
        top = 0.95 - (0.12 if against == "seconds" else 0.075) * i
        axes.plot([0.30, 0.37], [top] * 2, transform=axes.transAxes, color=_COLOUR_OF[mode], **pen)
        axes.text(0.39, top, words, transform=axes.transAxes, va="center", fontsize=9)
        highest, lowest = max(highest, curve.max()), min(lowest or np.inf, curve.min())
    axes.set_ylim(lowest * 0.95, highest * 1.2)
    _plain_ticks(axes)


def _draw_sweeps(axes: Axes, config: Any, row_of: dict[Key, Row]) -> None:
    axes.set_title("Rarer updates, longer windows", loc="left")
    axes.set(xscale="log", xlabel="k1 or k2 in steps")
    lines = (
        ("k1 varies", config.k1_sweep, COLOURS[5], [(k1, config.k2) for k1 in config.k1_sweep]),
        ("k2 varies", config.k2_sweep, COLOURS[1], [(config.k1, k2) for k2 in config.k2_sweep]),
    )
    for words, xs, colour, pairs in lines:
        losses = np.array([row_of[(*pair, "stored")]["last_quarter_bits"] for pair in pairs])
        axes.plot(xs, losses.mean(1), color=colour, linewidth=2.2, marker="o")
        for x, seeds in zip(xs, losses, strict=True):
            axes.plot([x] * len(seeds), seeds, "_", color=colour, markersize=7, alpha=0.6)
        above = words == "k1 varies"
        axes.annotate(
            f"{words}, {f'k2 = {config.k2}' if above else f'k1 = {config.k1}'}",
            (xs[-1], losses[-1].max() if above else losses[-1].min()),
            xytext=(0, 8 if above else -8),
            textcoords="offset points",
            ha="right",
            va="bottom" if above else "top",
            color=colour,
            fontweight="bold",
        )
    axes.margins(y=0.12)
    plain_ticks(axes.xaxis, sorted({*config.k1_sweep, *config.k2_sweep}))
    axes.set_ylabel(f"bits per character, last quarter of {config.num_steps:,} steps")
    grid(axes, "y")


def _plain_ticks(axes: Axes) -> None:
    low, high = axes.get_ylim()
    plain_ticks(axes.yaxis, [t for t in (1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8) if low <= t <= high])
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    grid(axes)
