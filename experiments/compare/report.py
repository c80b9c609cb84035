"""Makes the table and the figure of the comparison."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.common.figures import COLOURS, grid, new_figure
from experiments.common.report import Column, Row
from experiments.compare.systems import System

# Distances to the optimum that are smaller or larger than this are drawn at the border.
_BEST, _WORST = 1e-6, 1e3

# The colour of each kind of bias, and the words of the legend.
_BIASES = {
    "none": (COLOURS[0], "unbiased"),
    "smoothing": (COLOURS[2], "unbiased for a smoothed loss"),
    "sparsity": (COLOURS[4], "biased: influences left out"),
    "truncation": (COLOURS[3], "biased: truncated"),
}


def columns(systems: Sequence[System]) -> tuple[Column, ...]:
    """Returns the columns: scores first, then costs."""

    def pair(field: str, digits: str) -> Any:
        first, last = systems[0].name, systems[-1].name
        return lambda row: f"{row[first][field]:{digits}} / {row[last][field]:{digits}}"

    return (
        ("estimator", "{label}"),
        ("bias", "{bias}"),
        *((system.label, lambda row, name=system.name: _score(row[name])) for system in systems),
        ("evaluations per time step", pair("evaluations_per_time_step", ",.0f")),
        ("in a chain", "{chain:.3g}"),
        ("memory, kB", pair("kilobytes", ",.0f")),
        ("updates", pair("num_updates", ",d")),
    )


def _score(of: Row) -> str:
    median = of["score_median"]
    if not median <= _WORST:
        return "diverged"
    number = f"{median:.1e}" if median < 0.01 or median >= 100 else f"{median:.2f}"
    return number + "\\*" * of["rate_at_edge"]


def note(config: Any) -> str:
    """Explains the columns."""
    names = {"balancing": "influence balancing", "learning": "the task"}
    first, last = (names.get(name, name) for name in (config.systems[0], config.systems[-1]))
    return f"""\
Scores: for influence balancing, |θ − θ\\*| at the end divided by that at the start; for the task,
the loss over the last part of the stream as a share of the memoryless loss. Influence balancing has
n = 23 states, of which θ pushes the first p = 10 up and the others down; n and p set how far back
its gradient reaches. Medians over {config.num_seeds} seeds, at the rate of the grid with the best
mean over {config.num_tuning_runs} other seeds; \\*: that rate is the first or the last of the grid.
An estimator without random numbers, on a system without any, is trained once at each rate. Every
training may evaluate the cell equally often, so that expensive estimators see fewer time steps. A
forward step is one evaluation, a product with the derivative of a step is another, and TBPTT and
ARTBP take three per time step. The adapted length is charged as if it stayed at its first value:
where it settles at 1, it evaluates about five times as often as that, where it settles at 256,
less. In a chain: the evaluations, per time step, that wait for one another. Memory: temporaries and
state of one estimate. Pairs "a / b": {first} / {last}.
"""


def figure(config: Any, systems: Sequence[System], rows: Sequence[Row]) -> Figure:
    """Draws a panel per system with a line per arm: median and quartiles of the score."""
    width = 0.775 / (len(systems) + 0.12 * (len(systems) - 1))
    figure, panels = new_figure(
        (13.5, 7.2),
        "Every way to truncate, at the same cost",
        f"Each training evaluates the cell as often as TBPTT does in {config.num_steps:,} time "
        f"steps.\nDots: medians over {config.num_seeds} seeds; bars: quartiles; learning rate "
        "tuned per estimator on other seeds. Left is better.\nAt the dashed line a training ended "
        "no better than it began; ◂ nearer than 10⁻⁶, ▸ diverged.",
        [(0.215 + 1.12 * width * i, 0.155, width, 0.67) for i in range(len(systems))],
    )
    for axes, system in zip(panels, systems, strict=True):
        is_share = system.optimizer == "adam"
        low, high = (0.0, 1.3) if is_share else (_BEST, _WORST)
        axes.set_title(system.label, fontsize=10)
        if is_share:
            axes.set_xlabel("share of the\nmemoryless loss", fontsize=9)
        else:
            axes.set(xscale="log", xticks=[1e-6, 1e-3, 1])
            axes.set_xlabel("distance to θ*,\n÷ that of the start", fontsize=9)
        axes.set(xlim=(low, high), ylim=(len(rows) - 0.5, -0.5))
        labels = [row["label"] if axes is panels[0] else "" for row in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.tick_params(axis="y", length=0)
        grid(axes, "y")
        axes.axvline(1, color="0.45", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for height, row in enumerate(rows):
            scores = [row[system.name][f"score_{q}"] for q in ("lower_quartile", "upper_quartile")]
            median = row[system.name]["score_median"]
            left, right, dot = np.clip(np.nan_to_num([*scores, median], nan=high), low, high)
            colour, _ = _BIASES[row["bias"].removesuffix(" and smoothing")]
            axes.plot([left, right], [height, height], color=colour, linewidth=2, alpha=0.5)
            marker = ">" if dot >= high else "<" if dot <= low and not is_share else "o"
            axes.plot(dot, height, marker, color=colour, markersize=6, clip_on=False, zorder=5)
    handles = [
        Line2D([], [], color=colour, marker="o", linewidth=0, label=words)
        for colour, words in _BIASES.values()
    ]
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.208, -0.005), ncols=4, frameon=False
    )
    return figure
