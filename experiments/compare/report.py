"""The table and the figure of the comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.common.arms import Arm
from experiments.common.figures import COLOURS, grid, new_figure
from experiments.common.report import Column, Row
from experiments.compare.systems import System
from experiments.compare.training import Result

# Scores that are better or worse than this are drawn at the border.
_BEST, _WORST = 1e-6, 1e3

_COLOUR_OF_BIAS = {
    "none": COLOURS[0],
    "smoothing": COLOURS[2],
    "sparsity": COLOURS[4],
    "truncation": COLOURS[3],
    "truncation and smoothing": COLOURS[3],
}
_WORDS_OF_BIAS = {
    "none": "unbiased",
    "smoothing": "unbiased for a smoothed loss",
    "sparsity": "biased: influences left out",
    "truncation": "biased: truncated",
}

Results = Mapping[tuple[Arm, str], Result]


def table_rows(arms: Sequence[Arm], systems: Sequence[System], results: Results) -> list[Row]:
    """One row per arm, with a field per system."""
    rows = []
    for arm in arms:
        row: Row = {
            "arm": arm.text,
            "label": arm.label,
            "bias": arm.claims.bias,
            "chain": arm.chain,
        }
        for system in systems:
            result = results[arm, system.name]
            lower, median, upper = result.score
            row[system.name] = {
                "score_lower_quartile": lower,
                "score_median": median,
                "score_upper_quartile": upper,
                "num_seeds": len(result.scores),
                "rate": result.choice.rate,
                "rate_at_edge": result.choice.at_edge,
                "tuning_scores": result.choice.scores,
                "evaluations_per_time_step": arm.evaluations(system.size),
                "num_steps": result.num_steps,
                "num_updates": result.num_updates,
                "kilobytes": result.kilobytes,
                "seconds": result.seconds,
            }
        rows.append(row)
    return rows


def columns(systems: Sequence[System]) -> tuple[Column, ...]:
    """Scores first, then what they cost."""

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
    edge = "\\*" if of["rate_at_edge"] else ""
    median = of["score_median"]
    if not np.isfinite(median) or median > _WORST:
        return "diverged"
    return f"{median:.1e}{edge}" if median < 0.01 or median >= 100 else f"{median:.2f}{edge}"


def note(config: Any) -> str:
    """What the columns mean."""
    return f"""\
Scores: of the balancing acts |θ − θ\\*| at the end over that at the start; of the task the loss
over the last part of the stream as a share of the memoryless loss. Influence balancing has n = 23
states, of which θ pushes the first p = 10 up and the others down; n and p set how far back its
gradient reaches. Medians over {config.num_seeds} seeds, at the rate of the grid with the best mean
over {config.num_tuning_runs} other seeds; \\*: that rate is the first or the last of the grid. An
estimator without random numbers, on a system without any, is trained once at each rate. Every
training may evaluate the cell equally often, so that expensive estimators see fewer time steps. A
forward step is one evaluation, a product with the derivative of a step is another, and TBPTT and
ARTBP take three per time step. The adapted length is charged as if it stayed at its first value:
where it settles at 1, it evaluates about five times as often as that, where it settles at 256,
less. In a chain: the evaluations, per time step, that wait for one another. Memory: temporaries and
state of one estimate. Pairs "a / b": {systems_words(config)}.
"""


def systems_words(config: Any) -> str:
    """What the two numbers of a pair belong to."""
    first, last = config.systems[0], config.systems[-1]
    names = {"balancing": "influence balancing", "learning": "the task"}
    return f"{names.get(first, first)} / {names.get(last, last)}"


def figure(config: Any, arms: Sequence[Arm], systems: Sequence[System], results: Results) -> Figure:
    """A panel per system, a line per arm: median and quartiles of the score."""
    width = 0.805 / (len(systems) + 0.12 * (len(systems) - 1))
    figure, panels = new_figure(
        (13.5, 7.2),
        "Every way to truncate, at the same cost",
        f"Each training evaluates the cell as often as TBPTT does in {config.num_steps:,} time "
        f"steps.\nDots: medians over {config.num_seeds} seeds; bars: quartiles; learning rate "
        "tuned per estimator on other seeds. Left is better.\nAt the dashed line a training ended "
        "no better than it began; ◂ nearer than 10⁻⁶, ▸ diverged.",
        [(0.185 + 1.12 * width * i, 0.155, width, 0.67) for i in range(len(systems))],
    )
    for index, (axes, system) in enumerate(zip(panels, systems, strict=True)):
        _panel(axes, arms, system, results, with_names=index == 0)
    handles = [
        Line2D([], [], color=_COLOUR_OF_BIAS[bias], marker="o", linewidth=0, label=words)
        for bias, words in _WORDS_OF_BIAS.items()
    ]
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.178, -0.005), ncols=4, frameon=False
    )
    return figure


def _panel(
    axes: Axes,
    arms: Sequence[Arm],
    system: System,
    results: Results,
    *,
    with_names: bool,
) -> None:
    is_share = system.optimizer == "adam"
    low, high = (0.0, 1.3) if is_share else (_BEST, _WORST)
    axes.set(ylim=(len(arms) - 0.5, -0.5))
    if is_share:
        axes.set(xlim=(low, high))
    else:
        axes.set(xscale="log", xlim=(low, high))
        axes.set_xticks([1e-6, 1e-3, 1])
    axes.set_title(system.label, fontsize=10)
    axes.set_xlabel(
        "share of the\nmemoryless loss" if is_share else "distance to θ*,\n÷ that of the start",
        fontsize=9,
    )
    axes.set_yticks(range(len(arms)))
    axes.set_yticklabels([arm.label for arm in arms] if with_names else [])
    axes.tick_params(axis="y", length=0)
    grid(axes, "y")
    axes.axvline(1, color="0.45", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for height, arm in enumerate(arms):
        values = [_drawn(value, low, high) for value in results[arm, system.name].score]
        colour = _COLOUR_OF_BIAS[arm.claims.bias]
        axes.plot([values[0], values[2]], [height, height], color=colour, linewidth=2, alpha=0.5)
        marker = ">" if values[1] >= high else "<" if values[1] <= low and not is_share else "o"
        axes.plot(
            [values[1]], [height], marker, color=colour, markersize=6, clip_on=False, zorder=5
        )


def _drawn(value: float, low: float, high: float) -> float:
    return float(np.clip(value, low, high)) if np.isfinite(value) else high
