"""The table and the figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.common.figures import grid, label_ends, new_figure, plain_ticks
from experiments.common.report import Column, Row, median_and_range, select
from experiments.common.tuning import rate_text, rates_text
from experiments.critic.systems import SYSTEMS
from experiments.critic.training import ARMS, EARLY, LAST, POINTS


def columns() -> list[Column]:
    """Of the table."""

    def optional(field: str, **options: Any) -> Any:
        return lambda row: "–" if row[field] is None else median_and_range(row[field], **options)

    return [
        ("system", lambda row: SYSTEMS[row["system"]]().label),
        ("estimator", "{label}"),
        ("learning rate", lambda row: rate_text(row["learning_rate"], row["rate_at_edge"])),
        ("last loss", lambda row: median_and_range(row["last_loss"])),
        ("share of δ² that the critic explains: early", optional("explained_early", worst=-np.inf)),
        ("at the end", optional("explained_last", worst=-np.inf)),
        ("variance of the look-back ÷ without critic: early", optional("variance_early")),
        ("at the end", optional("variance_last")),
    ]


def note(config: Any) -> str:
    """What the table cannot hold."""
    return f"""\
Median [smallest, largest] of {config.num_seeds} seeds. Loss: mean over the last {LAST} of \
{POINTS} parts of a training of {config.num_steps:,} time steps. Windows have 10 steps, in the \
controller 5. A look-back stops at each edge with probability {config.hazard:g}, so unbiased TBPTT \
goes backward through {1 / config.hazard:g} windows for each one forward, TBPTT through one. \
Critic: one layer of {config.critic_units} units, Adam with rate {config.critic_rate:g}. δ: the \
derivative of the later losses by the carry at an edge, as far as it is known one window later; \
the share is 1 − Σ (δ − v)²/Σ δ², where δ contains the critic's own next prediction. Variance: of \
the gradient of a window over {config.variance_draws} draws of the look-back, with the same \
parameters with and without the critic. Early: part {EARLY} of {POINTS}, and the parameters after \
it. Learning rate: of {rates_text(config)}, the one with the \
smallest last loss in {config.num_tuning_runs} other run (\\*: at the edge of the grid)."""


def make_figure(config: Any, rows: Sequence[Row]) -> Figure:
    """Losses against time steps, a panel for each system."""
    number = len(config.systems)
    width = 5.6 * number + 0.3
    figure, panels = new_figure(
        (width, 4.6),
        "A critic at the edges of the windows",
        f"Loss in training, median of {config.num_seeds} seeds; bands: smallest to largest.",
        [((0.8 + 5.6 * i) / width, 0.12, 2.75 / width, 0.66) for i in range(number)],
    )
    steps = config.num_steps / POINTS * np.arange(1, POINTS + 1)
    for axes, name in zip(panels, config.systems, strict=True):
        labels = []
        for row in select(rows, system=name):
            losses, color = np.array(row["losses"]), ARMS[row["arm"]].color
            middle = np.median(losses, axis=0)
            axes.plot(steps, middle, color=color, linewidth=1.8)
            low, high = losses.min(axis=0), losses.max(axis=0)
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
            if np.isfinite(middle[-1]):
                labels.append((middle[-1], row["label"], {"color": color}))
        axes.set(yscale="log", xlim=(0, config.num_steps), xlabel="time steps", ylabel="loss")
        plain_ticks(axes.xaxis, [config.num_steps / 3 * i for i in range(4)], "{:,.0f}")
        low, high = axes.get_ylim()
        ticks = [m * 10.0**e for e in range(-3, 4) for m in (1, 3)]
        plain_ticks(axes.yaxis, [tick for tick in ticks if low <= tick <= high])
        axes.set_title(SYSTEMS[name]().label, fontweight="bold")
        grid(axes)
        label_ends(axes, labels)
    return figure
