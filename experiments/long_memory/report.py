"""The table and the figure: a row for each arm, a column or panel for each task."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.common.figures import grid, new_figure, plain_ticks
from experiments.common.report import Column, Row, select
from experiments.common.tuning import rate_text, rates_text
from experiments.long_memory.arms import arms
from experiments.long_memory.problems import LENGTH, PASSAGE, PROBLEMS, Problem

NONE = "–"


def problems_of(config: Any) -> dict[str, Problem]:
    """Returns the tasks of the configuration by name."""
    return {name: PROBLEMS[name](config.text) for name in config.tasks}


def by_arm(config: Any, rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of the table: one for each arm, then those of a guess and of the best."""
    found: list[Row] = []
    problems = problems_of(config)
    for name in config.arms:
        arm = arms(config.window)[name]
        of_arm = {row["task"]: row for row in select(rows, arm=name)}
        if not of_arm:
            continue
        texts = {task: problems[task].words(row["scores"]) for task, row in of_arm.items()}
        rates = (
            rate_text(of_arm[task]["learning_rate"], of_arm[task]["rate_at_edge"])
            if task in of_arm
            else NONE
            for task in config.tasks
        )
        steps = next(iter(of_arm.values()))["num_steps"]
        found.append(
            {
                "label": arm.label,
                "work": f"{arm.work:.3g}",
                "steps": f"{steps:,}",
                "stored": arm.stored,
                "rates": ", ".join(rates),
            }
            | {task: texts.get(task, NONE) for task in config.tasks}
        )
    for label, field in (("*guess without memory*", "chance"), ("*best possible*", "best")):
        values = {task: getattr(problem, field) for task, problem in problems.items()}
        texts = {task: NONE if math.isnan(x) else f"{x:.3g}" for task, x in values.items()}
        found.append({"label": label, **dict.fromkeys(("work", "steps", "stored", "rates"), "")})
        found[-1] |= texts
    return found


def columns(config: Any) -> list[Column]:
    """Of the table."""
    scores = [
        (f"{problem.label}: {problem.unit}", f"{{{name}}}")
        for name, problem in problems_of(config).items()
    ]
    return [
        ("training", "{label}"),
        *scores,
        ("work per time step", "{work}"),
        ("time steps", "{steps}"),
        ("steps stored", "{stored}"),
        ("learning rates", "{rates}"),
    ]


def note(config: Any) -> str:
    """Returns the note below the table."""
    return f"""\
Scores on new data: median [smallest, largest] of {config.num_seeds} seeds. Sequences have \
{LENGTH} steps; text comes in passages of {PASSAGE} characters, where full BPTT, SAB and target \
propagation make an update every {LENGTH}. \
The cell has {config.hidden_size} units and is an LSTM unless the table says otherwise; \
{config.batch} rows side by side; forget gates begin with a bias of {config.forget_bias:g}. Work: \
evaluations of the cell per time step, where a forward step is one and a backward step two. All \
trainings have the work of {config.num_sequences:,} sequences of TBPTT, so a costly step leaves \
fewer time steps. Steps stored: those whose residuals an estimate holds at a time. Learning rate: \
for each task the one of {rates_text(config)} with the smallest loss in the last quarter of \
{config.num_tuning_runs} run(s) that are not reported (\\*: at the edge of the grid). Adam, \
without clipping, unless the table says otherwise."""


def make_figure(config: Any, rows: Sequence[Row]) -> Figure:
    """Draws a panel for each task, with a line for each arm; right is better everywhere."""
    problems = problems_of(config)
    names = [name for name in config.arms if select(rows, arm=name)]
    table = arms(config.window)
    width = 0.775 / (1.12 * len(problems) - 0.12)
    height = 1.9 + 0.32 * len(names)
    figure, panels = new_figure(
        (13.5, height),
        "Which tool for which dependency",
        f"Score on new data: median, smallest and largest of {config.num_seeds} seeds, at equal "
        "work and each at its best learning rate. Right is better.\n"
        "Dashed: the best guess without memory. Dotted: the best possible. ◂: further left than "
        "drawn.",
        [
            (0.215 + 1.12 * width * i, 0.6 / height, width, 1 - 1.8 / height)
            for i in range(len(problems))
        ],
    )
    for axes, (task, problem) in zip(panels, problems.items(), strict=True):
        axes.set_title(problem.label, fontweight="bold")
        axes.set_xlabel(problem.unit)
        axes.set_ylim(len(names) - 0.5, -0.5)
        labels = [table[name].label if axes is panels[0] else "" for name in names]
        axes.set_yticks(range(len(names)), labels)
        axes.tick_params(axis="y", length=0)
        grid(axes)
        medians = []
        for place, name in enumerate(names):
            for row in select(rows, task=task, arm=name):
                scores, color = np.array(row["scores"], float), table[name].color
                finite = scores[np.isfinite(scores)]
                if len(finite) < len(scores):
                    axes.plot(problem.chance, place, "x", color=color, clip_on=False)
                middle = np.median(np.where(np.isfinite(scores), scores, problem.worst))
                if len(finite):
                    ends = [finite.min(), finite.max()]
                    axes.plot(ends, [place] * 2, color=color, linewidth=2, alpha=0.5)
                if np.isfinite(middle):
                    axes.plot(middle, place, "o", color=color, markersize=6)
                    medians.append((middle, place, color))
        if problem.unit == "squared error":
            axes.set_xscale("log")
            axes.set_xlim(0.4, 3e-5)
            plain_ticks(axes.xaxis, [1e-1, 1e-2, 1e-3, 1e-4])
        elif problem.worst > 0:
            axes.set_xlim(1.5 * problem.chance, 0)
        else:
            axes.set_xlim(0, 1.03 * problem.best)
        left, right = axes.get_xlim()
        for middle, place, color in medians:
            if left > right and middle > left:  # far worse than a guess
                axes.plot(left, place, "<", color=color, markersize=6, clip_on=False)
        axes.axvline(problem.chance, color="0.45", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.axvline(problem.best, color="0.45", linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    return figure
