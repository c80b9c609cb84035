"""The table and the figure of the comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.common.figures import COLOURS, STYLE
from experiments.common.tables import Column, Row
from experiments.compare.contenders import Contender
from experiments.compare.problems import Problem
from experiments.compare.trainings import Result

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

Results = Mapping[tuple[str, str], Result]


def table_rows(
    contenders: Sequence[Contender], problems: Sequence[Problem], results: Results
) -> list[Row]:
    """One row per contender, with a field per problem."""
    rows = []
    for contender in contenders:
        row: Row = {
            "contender": contender.name,
            "label": contender.label,
            "bias": contender.bias,
            "chain": contender.chain,
        }
        for problem in problems:
            result = results[contender.name, problem.name]
            lower, median, upper = result.score
            row[problem.name] = {
                "score_lower_quartile": lower,
                "score_median": median,
                "score_upper_quartile": upper,
                "num_seeds": len(result.scores),
                "rate": result.rate,
                "rate_at_edge": result.at_edge,
                "evaluations_per_time_step": contender.evaluations(problem.size),
                "num_steps": result.num_steps,
                "num_updates": result.num_updates,
                "kilobytes": result.kilobytes,
                "seconds": result.seconds,
            }
        rows.append(row)
    return rows


def columns(problems: Sequence[Problem]) -> tuple[Column, ...]:
    """Of the Markdown table: scores first, then what they cost."""
    first, last = problems[0].name, problems[-1].name
    return (
        ("estimator", lambda row: row["label"]),
        ("bias", lambda row: row["bias"]),
        *((problem.label, _score_of(problem.name)) for problem in problems),
        ("evaluations per time step", _pair(first, last, "evaluations_per_time_step", ",.0f")),
        ("in a chain", lambda row: f"{row['chain']:.3g}"),
        ("memory, kB", _pair(first, last, "kilobytes", ",.0f")),
        ("updates", _pair(first, last, "num_updates", ",d")),
    )


def _pair(first: str, last: str, field: str, digits: str) -> Any:
    def text(row: Row) -> str:
        return f"{row[first][field]:{digits}} / {row[last][field]:{digits}}"

    return text


def _score_of(problem: str) -> Any:
    def text(row: Row) -> str:
        of = row[problem]
        edge = "\\*" if of["rate_at_edge"] else ""
        median = of["score_median"]
        if not np.isfinite(median) or median > _WORST:
            return "diverged"
        return f"{median:.1e}{edge}" if median < 0.01 or median >= 100 else f"{median:.2f}{edge}"

    return text


def figure(
    contenders: Sequence[Contender],
    problems: Sequence[Problem],
    results: Results,
    *,
    title: str,
    subtitle: str,
) -> Figure:
    """A panel per problem, a line per contender: median and quartiles of the score."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13.5, 7.2))
        grid = figure.add_gridspec(
            1, len(problems), left=0.185, right=0.99, top=0.85, bottom=0.155, wspace=0.12
        )
        panels = [figure.add_subplot(cell) for cell in grid]
    figure.text(0.01, 0.965, title, fontsize=14, fontweight="bold", va="center")
    figure.text(0.01, 0.938, subtitle, fontsize=10, color="0.3", va="top", linespacing=1.35)
    for index, (axes, problem) in enumerate(zip(panels, problems, strict=True)):
        _panel(axes, contenders, problem, results, with_names=index == 0)
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
    contenders: Sequence[Contender],
    problem: Problem,
    results: Results,
    *,
    with_names: bool,
) -> None:
    is_share = problem.optimizer == "adam"
    low, high = (0.0, 1.3) if is_share else (_BEST, _WORST)
    axes.set(ylim=(len(contenders) - 0.5, -0.5))
    if is_share:
        axes.set(xlim=(low, high))
    else:
        axes.set(xscale="log", xlim=(low, high))
        axes.set_xticks([1e-6, 1e-3, 1])
    axes.set_title(problem.label, fontsize=10)
    axes.set_xlabel(
        "share of the\nmemoryless loss" if is_share else "distance to θ*,\n÷ that of the start",
        fontsize=9,
    )
    axes.set_yticks(range(len(contenders)))
    axes.set_yticklabels([contender.label for contender in contenders] if with_names else [])
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="y", color="0.92", linewidth=0.8)
    axes.axvline(1, color="0.45", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for height, contender in enumerate(contenders):
        values = [_drawn(value, low, high) for value in results[contender.name, problem.name].score]
        colour = _COLOUR_OF_BIAS[contender.bias]
        axes.plot([values[0], values[2]], [height, height], color=colour, linewidth=2, alpha=0.5)
        marker = ">" if values[1] >= high else "<" if values[1] <= low and not is_share else "o"
        axes.plot(
            [values[1]], [height], marker, color=colour, markersize=6, clip_on=False, zorder=5
        )


def _drawn(value: float, low: float, high: float) -> float:
    return float(np.clip(value, low, high)) if np.isfinite(value) else high
