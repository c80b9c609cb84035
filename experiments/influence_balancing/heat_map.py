"""Which learning rates work: share of converged keys, method by rate, a panel per schedule."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.common.figures import STYLE
from experiments.common.report import Row
from experiments.influence_balancing import outcomes

LETTERS = {outcomes.NOT_YET: "N", outcomes.WRONG_DIRECTION: "W", outcomes.DIVERGED: "D"}
_COLOURS = "cividis"  # of even lightness steps, the same to every colour vision


def heat_map(
    rows: Sequence[Row],
    *,
    labels: Sequence[str],
    eta_0: Sequence[float],
    schedules: Sequence[str],
    subtitle: str,
) -> Figure:
    """One cell per row: colour and number the share of converged keys, letter what else happened.

    Args:
        rows: from `report.outcome_row`, one for each method, schedule and rate.
        labels: of the methods, from top to bottom.
        eta_0: the columns.
        schedules: the panels.
        subtitle: settings that all cells share.
    """
    found = {(row["schedule"], row["label"], row["eta_0"]): row for row in rows}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.4 + 4.6 * len(schedules), 2.2 + 0.45 * len(labels)))
        figure.set_layout_engine("constrained", rect=(0, 0.09, 1, 0.78))
        panels = figure.subplots(1, len(schedules), sharey=True, squeeze=False)
    for axes, schedule in zip(panels[0], schedules, strict=True):
        cells = [[found[schedule, label, rate] for rate in eta_0] for label in labels]
        shares = np.array([[row["share"][outcomes.CONVERGED] for row in line] for line in cells])
        axes.imshow(shares, cmap=_COLOURS, norm=Normalize(0, 1), aspect="auto")
        axes.set_title(f"η = η₀/√(1+t), t in {schedule}", fontsize=11)
        axes.set_xticks(range(len(eta_0)), [f"{rate:g}" for rate in eta_0])
        axes.set_yticks(range(len(labels)), labels)
        axes.set_xlabel("η₀")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(len(eta_0) - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(len(labels) - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=2)
        axes.tick_params(which="minor", length=0)
        for y, line in enumerate(cells):
            for x, row in enumerate(line):
                axes.text(
                    x,
                    y,
                    _words(row),
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="black" if shares[y, x] > 0.55 else "white",
                )
    figure.colorbar(
        ScalarMappable(Normalize(0, 1), _COLOURS),
        ax=panels[0].tolist(),
        label="share of keys converged",
        format=lambda value, _: f"{value:.0%}",
        pad=0.01,
        aspect=25,
    )
    figure.text(
        0.008,
        0.95,
        "Which learning rates find the optimum?",
        fontsize=14,
        fontweight="bold",
        va="center",
    )
    figure.text(0.008, 0.895, subtitle, fontsize=10, color="0.35", va="center")
    letters = "     ".join(f"{letter}  {name}" for name, letter in LETTERS.items())
    figure.text(
        0.008,
        0.045,
        f"Number: share of keys converged, in %.  Letter: the most frequent failure:   {letters}\n"
        "↺  most of the converged keys had first run off, more than "
        f"{outcomes.DIVERGED_FACTOR:.0f} times as far from θ* as they had started",
        fontsize=10,
        va="center",
    )
    return figure


def _words(row: Row) -> str:
    share = row["share"]
    failure = outcomes.main_failure(share)
    converged = share[outcomes.CONVERGED]
    words = [f"{100 * converged:.0f}"] if converged > 0 else []
    words += [LETTERS[failure]] if failure else []
    words += ["↺"] if row["share_recovered"] > converged / 2 else []
    return " ".join(words)
