"""The two tables, and the figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.common.figures import COLOURS, grid, label_ends, new_figure, plain_ticks
from experiments.common.report import Column, Row, median_and_range, select
from experiments.common.tuning import rate_text
from experiments.lorenz.system import ARMS
from experiments.lorenz.training import LAST


def training_columns() -> list[Column]:
    """Of the first table."""
    return [
        ("estimator", "{label}"),
        ("learning rate", lambda row: rate_text(row["learning_rate"], row["rate_at_edge"])),
        ("last loss", lambda row: median_and_range(row["last_loss"])),
        ("a (true: 10)", lambda row: median_and_range(row["a"])),
        ("r (true: 28)", lambda row: median_and_range(row["r"])),
    ]


def training_note(config: Any, rows: Sequence[Row]) -> str:
    """What the first table cannot hold."""
    return f"""\
Loss: (z − z\\*)², mean over the {config.num_steps:,} steps of a trajectory without perturbations \
and over the last {LAST} of {config.num_points} evaluations; it is {rows[0]["first_loss"]:.3g} \
at the first parameters, a = {np.exp(config.log_a):.3g} and r = {np.exp(config.log_r):.3g}. Median \
[smallest, largest] of {config.num_seeds} seeds. SGD, {config.num_updates:,} updates, each after \
{config.truncation_length} steps of {config.num_particles} particles (pairs of perturbations, σ = \
{config.scale:g}, or directions; TBPTT has none), which are spread over the places of a \
trajectory. Learning rate: of {len(config.learning_rates)} from {min(config.learning_rates):g} to \
{max(config.learning_rates):g}, the one with the smallest last loss in {config.num_tuning_runs} \
runs that are not reported (\\*: at the edge of the grid). GPES draws new perturbations every \
{5 * config.truncation_length} steps."""


def variance_columns() -> list[Column]:
    """Of the second table."""

    def ratio(row: Row) -> str:
        low, high = row["ratio_interval"]
        return f"{row['ratio']:.3g} [{low:.3g}, {high:.3g}]" if low < high else "1"

    def mean(row: Row) -> str:
        pairs = zip(row["mean"], row["standard_error"], strict=True)
        return ", ".join(f"{mean:.3g} ± {error:.2g}" for mean, error in pairs)

    return [
        ("new perturbations every … steps", "{draw_every:,}"),
        ("variance", "{variance:.3g}"),
        ("variance ÷ that of PES", ratio),
        ("mean gradient by log a, log r ± standard error", mean),
    ]


def variance_note(config: Any) -> str:
    """What the second table cannot hold."""
    return f"""\
Gradient of the mean loss of a pass at the first parameters, which are not updated, with one pair \
of perturbations: variance of both entries summed, over {config.variance_draws:,} passes. The \
first row is PES, the last one NRES. Ratio: mean and 95 % interval (Student's t, of the \
logarithm) over 10 parts of the passes. Rows smooth the loss differently, so their means need not \
agree."""


def make_figure(config: Any, rows: Sequence[Row]) -> Figure:
    """Losses against updates, and the variance against how long a perturbation lasts."""
    figure, (left, right) = new_figure(
        (11.5, 4.9),
        "Noise reuse on the Lorenz system",
        f"Left: loss of the trajectory, median of {config.num_seeds} seeds, each estimator at its "
        "best rate. Right: variance of the gradient of a pass with one pair,\n"
        "against the steps that a perturbation lasts: from one unroll (PES) to the whole "
        "trajectory (NRES). Bars: 95 % interval.",
        [(0.07, 0.12, 0.36, 0.64), (0.66, 0.12, 0.31, 0.64)],
    )
    training, variances = select(rows, part="training"), select(rows, part="variance")
    updates = config.num_updates // config.num_points * np.arange(1, config.num_points + 1)
    labels = []
    for row in training:
        middle = np.median(np.where(np.isnan(row["losses"]), np.inf, row["losses"]), axis=0)
        color = ARMS[row["arm"]].color
        left.plot(updates, middle, color=color, linewidth=1.6)
        if np.isfinite(middle[-1]):
            labels.append((middle[-1], row["label"], {"color": color}))
    left.set(yscale="log", xlim=(0, config.num_updates), xlabel="updates", ylabel="loss")
    low, high = left.get_ylim()
    plain_ticks(left.yaxis, [n for n in (20, 50, 100, 200, 500, 1000) if low <= n <= high])
    label_ends(left, labels)
    steps = [row["draw_every"] for row in variances]
    ratios = np.array([row["ratio"] for row in variances])
    bars = np.array([row["ratio_interval"] for row in variances]).T
    right.errorbar(
        steps, ratios, np.abs(bars - ratios), color=COLOURS[3], marker="o", markersize=4, capsize=2
    )
    right.set(xscale="log", yscale="log", ylabel="variance ÷ that of PES")
    right.set(xlabel="steps between new perturbations")
    plain_ticks(right.xaxis, [n for n in steps if str(n)[0] in "125"])
    low, high = right.get_ylim()
    plain_ticks(
        right.yaxis, [n for n in (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1, 2, 3) if low <= n <= high]
    )
    for axes in (left, right):
        grid(axes)
    return figure
