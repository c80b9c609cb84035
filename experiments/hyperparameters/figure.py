"""For each problem: where each arm pushes the rate, along two lines, and what it learns."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.arms import parse
from experiments.common.figures import COLOURS, colors, ink, new_figure
from experiments.common.report import Row, select
from experiments.hyperparameters import report

BLUE, WRONG = COLOURS[0], COLOURS[3]
TITLES = {"constant": "A constant rate", "end": "The rate at the end of the schedule"}
# Loss above the grid's best, relative to it: how dark the ground is.
LEVELS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 1e10)


def draw(config: Any, rows: Sequence[Row]) -> Figure:
    """Three panels for each problem; from the rows alone."""
    grids = select(rows, part="landscape")
    height = 1.25 + 4.3 * len(grids)
    bottoms = [(height - 1.25 - 4.3 * i - 3.6) / height for i in range(len(grids))]
    figure, panels = new_figure(
        (15, height),
        "Short windows push a learning rate the wrong way; unbiased estimators on average do not",
        "The gradient of the training loss in the learning rate, through the inner training. The "
        "number after a method: steps of a window or segment, for ARTBP on average.\n"
        "Left: a step down the gradient moves the rate as the arrow shows; red, outlined: away "
        "from less loss; hollow: not told from zero; line: least loss.\n"
        f"Right: lines from ○ are the median of {config.num_seeds} seeds, dots the seeds; the "
        "ground is the loss, dark is more, ★ its least. Off: above twice the best.",
        [(x, y, 0.203, 2.9 / height) for y in bottoms for x in (0.105, 0.34, 0.605)],
    )
    for i, grid in enumerate(grids):
        *left, right = panels[3 * i : 3 * i + 3]
        style: Any = {"fontsize": 12, "fontweight": "bold", "color": BLUE}
        label = grid["label"]
        figure.text(0.01, bottoms[i] + 3.2 / height, label[0].upper() + label[1:], **style)
        for axes, (line, title) in zip(left, TITLES.items(), strict=True):
            _signs(axes, report.sign_map(rows, grid["problem"], line), names=line == "constant")
            axes.set_title(title, fontsize=10.5)
        trained = select(rows, part="training", problem=grid["problem"])
        _paths(right, grid, trained, config)
    return figure


def _signs(axes: Axes, of_arms: dict[str, list[Row]], *, names: bool) -> None:
    """An arrow for each arm and rate, to where minus the gradient moves the rate."""
    exact = next(iter(of_arms.values()))
    for place, own in enumerate(of_arms.values()):
        for row, truth in zip(own, exact, strict=True):
            wrong = report.verdict(row, truth) == "wrong"
            pen: Any = {"markeredgecolor": "black" if wrong else "0.62", "markeredgewidth": 0.8}
            pen["color"] = (WRONG if wrong else "0.62") if report.sign_known(row) else "white"
            arrow = ">" if row["slope"] < 0 else "<"
            axes.plot(row["rate"], place, arrow, markersize=9 if wrong else 7, **pen)
    best = report.turning_rate(exact)
    if best is not None:
        axes.axvline(best, color=BLUE, linewidth=1.8, zorder=0)
    axes.set(xscale="log", xlabel="learning rate", ylim=(len(of_arms) - 0.1, -0.6))
    axes.set_yticks(range(len(of_arms)), [_wrapped(label) * names for label in of_arms])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _wrapped(label: str) -> str:
    """The label, on two lines if it is long."""
    return label.replace(", ", "\n", 1) if len(label) > 20 else label


def _paths(axes: Axes, grid: Row, trained: Sequence[Row], config: Any) -> None:
    """The schedules that the arms learn, over the loss of the grid."""
    own = {arm.label: color for arm, color in colors([parse(x) for x in config.arms]).items()}
    start, end = np.array(grid["start_rates"]), np.array(grid["end_rates"])
    losses = np.array(grid["losses"], float)
    excess = np.where(np.isfinite(losses), losses / grid["best_loss"] - 1, 1e9)
    greys = matplotlib.colormaps["Greys"](np.linspace(0.0, 0.55, len(LEVELS) - 1))
    axes.contourf(start, end, excess.T, levels=LEVELS, colors=greys)
    mark: Any = {"color": "white", "markeredgecolor": "black", "zorder": 6}
    axes.plot(*grid["best"], "*", markersize=16, **mark)
    axes.plot(config.first_rate, config.first_rate, "o", markersize=8, **mark)
    beside: Any = {"transform": axes.transAxes, "fontsize": 9.5, "va": "center"}
    axes.text(1.04, 0.97, "loss above the best (★)", color="0.3", **beside)
    ordered = sorted(trained, key=lambda row: float(np.median(row["losses"])))
    for i, row in enumerate(ordered):
        color = own[row["label"]]
        axes.plot(*np.array(row["median_path"]).T, color=color, linewidth=2.0, zorder=4)
        dots = np.array(row["rates"]).T
        axes.plot(*dots, "o", color=color, markeredgecolor="white", markersize=6, zorder=5)
        above = float(np.median(row["losses"])) / grid["best_loss"] - 1
        words = f"{100 * above:+.1f} %  {_wrapped(row['label'])}".replace("-", "−")
        lost = report.ran_off(row, grid["best_loss"])
        words += f" ({lost} of {len(row['losses'])} off)" * bool(lost)
        axes.text(1.04, 0.86 - 0.115 * i, words, color=ink(color), fontweight="bold", **beside)
    rates = np.concatenate([row["rates"] for row in trained])
    high = min(max(start[-1], 1.2 * rates[:, 0].max()), 10 * start[-1])
    axes.set(xscale="log", yscale="log", xlabel="rate at the start", ylabel="rate at the end")
    axes.set(xlim=(start[0], high), ylim=(min(end[0], 0.8 * rates.min()), end[-1]))
    axes.set_title("Learned schedules", fontsize=10.5)
