"""Makes the table and the figure: the return against the window of the backward pass."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.common.arms import Arm
from experiments.common.figures import colors, grid, label_ends, new_figure, plain_ticks
from experiments.common.report import Column, Row, mean_and_deviation
from experiments.common.tuning import rate_text, rates_text
from experiments.recurrent_ppo.training import Result, last_quarter, mean_return, share_right

NUM_BINS = 20

COLUMNS: list[Column] = [
    ("estimator", "{label}"),
    ("learning rate", lambda row: rate_text(row["learning_rate"], row["rate_at_edge"])),
    ("return", lambda row: mean_and_deviation(row["returns"], "{:.2f}")),
    ("return of each seed", lambda row: ", ".join(f"{one:.2f}" for one in row["returns"])),
    ("right turns, %", lambda row: mean_and_deviation(100 * np.array(row["right"]), "{:.0f}")),
]


def make_row(config: Any, result: Result) -> Row:
    """Makes the row of an arm, with the results of every seed."""
    arm, choice, curves = result
    end = last_quarter(config)
    row: Row = {"arm": arm.text, "label": arm.label}
    row["length"] = arm.length or config.rollout_length  # full BPTT: the whole rollout
    row |= {"learning_rate": choice.rate, "rate_at_edge": choice.at_edge}
    row["tuning_returns"] = [-score for score in choice.scores]  # by learning rate
    row["returns"] = np.round(mean_return(curves, end), 4).tolist()
    row["right"] = np.round(share_right(curves, end), 4).tolist()
    bins = np.array_split(np.arange(config.num_iterations), min(NUM_BINS, config.num_iterations))
    parts = [slice(int(part[0]), int(part[-1]) + 1) for part in bins]
    row["curve_steps"] = [part.stop * config.rollout_length * config.num_rows for part in parts]
    row["curves"] = np.round([mean_return(curves, part) for part in parts], 4).T.tolist()
    return row


def progress(row: Row) -> str:
    """Returns the words for a line of progress."""
    return f"{row['label']}: return {mean_and_deviation(row['returns'], '{:.2f}')}"


def note(config: Any) -> str:
    """Explains the columns."""
    steps = config.num_iterations * config.rollout_length * config.num_rows
    return f"""\
Return: reward for each episode over the last quarter of the training, not discounted, mean ± \
standard deviation of {config.num_seeds} seeds. In a T-maze the cue is seen at the first step of \
an episode only, and the turn comes at least {config.corridor_length} steps later. The best return \
is 1. Without memory it is 0, with half of the turns right. PPO with a GRU of \
{config.hidden_size} units, {config.num_rows} mazes, rollouts of {config.rollout_length} steps, \
{config.num_iterations} rollouts ({steps:,} steps), {config.num_epochs} epochs of \
{config.num_minibatches} minibatches of rows. Each update takes the gradient of one pass over the \
rollout, so all estimators make the same number of updates on the same number of steps. Full BPTT \
goes through the whole rollout. Adam after clipping to the norm {config.clip_norm:g}, learning \
rate the best of {rates_text(config)} by the return of \
{config.num_tuning_runs} runs that are not reported (\\*: at the edge of the grid)."""


def make_figure(config: Any, arms: Sequence[Arm], rows: Sequence[Row]) -> Figure:
    """Draws the return against the window, and against time steps; `rows` are one for each arm."""
    figure, (left, right) = new_figure(
        (12.4, 5.0),
        "Recurrent PPO: the return against the window of the backward pass",
        f"T-maze: at least {config.corridor_length} steps from the cue to the turn. "
        f"The best return is 1, without memory it is 0.\nLeft: last quarter of the training, "
        f"{config.num_seeds} seeds (dots) and their mean (bars). Right: mean of the seeds.",
        [(0.06, 0.12, 0.36, 0.66), (0.485, 0.12, 0.31, 0.66)],
    )
    pens = {arm.text: {"color": color} for arm, color in colors(arms).items()}
    returns = np.concatenate([row["returns"] for row in rows])
    lowest = max(returns[np.isfinite(returns)].min(initial=0), -1)
    windows = [row for row in rows if row["arm"].startswith(("tbptt", "bptt"))]
    means = sorted((row["length"], np.mean(row["returns"])) for row in windows)
    if means:
        left.plot(*np.transpose(means), color="0.6", linewidth=1.5, zorder=1)
    # Arms of the same length stand side by side.
    others = [row["arm"] for row in rows if row not in windows]
    for row in rows:
        shift = 1.0 if row in windows else 1.16 ** (1 + others.index(row["arm"]))
        place, pen = shift * row["length"], pens[row["arm"]]
        # A little apart, so that equal returns can all be seen.
        places = place * np.linspace(0.97, 1.03, len(row["returns"]))
        left.plot(places, row["returns"], "o", markersize=4, alpha=0.7, **pen)
        mean: Any = {"marker": "_", "markersize": 14, "markeredgewidth": 3}
        left.plot(place, np.mean(row["returns"]), **mean, **pen)
    left.axvline(config.corridor_length, color="0.45", linewidth=1, linestyle=(0, (1, 2)))
    left.set_ylim(lowest - 0.15, 1.08)
    words: dict[str, Any] = {"color": "0.3", "fontsize": 9, "va": "bottom"}
    left.text(config.corridor_length * 1.03, left.get_ylim()[0], "from cue to turn", **words)
    left.set(xscale="log", xlabel="window, or mean segment length, in steps", ylabel="return")
    plain_ticks(left.xaxis, sorted({row["length"] for row in rows}))
    right.set(xlabel="time steps of all mazes, in thousands")
    ends = []
    for row in rows:
        steps, curves = np.array(row["curve_steps"]) / 1000, np.array(row["curves"])
        pen = pens[row["arm"]]
        right.plot(steps, curves.mean(0), linewidth=2, **pen)
        ends.append((curves.mean(0)[-1], row["label"].replace(", 1", ",\n1"), pen))
    right.set_ylim(-0.6, 1.08)
    for axes in (left, right):
        grid(axes)
    label_ends(right, ends)
    return figure
