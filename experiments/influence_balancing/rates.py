"""Study "rates": every arm over a grid of learning rates and both readings of the schedule.

The figure is a heat map of the share of keys that converged, arm by rate, a panel per schedule.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.common.figures import new_figure
from experiments.common.report import Report, Row, table
from experiments.influence_balancing import outcomes
from experiments.influence_balancing.report import COLUMNS, NOTE, rows_of
from experiments.influence_balancing.training import Run

LETTERS = {outcomes.NOT_YET: "N", outcomes.WRONG_DIRECTION: "W", outcomes.DIVERGED: "D"}
_COLOURS = "cividis"  # of even lightness steps, the same to every colour vision


def report(config: Any, runs: Sequence[Run]) -> Report:
    """One row per arm, schedule and rate, and the heat map."""
    rows = [row for run in runs for row in rows_of(config, run)]
    return Report(table(rows, COLUMNS, NOTE), rows, {"rates": _draw(config, rows)})


def words(rows: Sequence[Row]) -> str:
    """At how many rates all keys of one arm converged."""
    good = sum(row["share"][outcomes.CONVERGED] == 1 for row in rows)
    return f"all keys converged at {good} of {len(rows)} learning rates"


def _draw(config: Any, rows: Sequence[Row]) -> Figure:
    schedules, eta_0 = config.grid_schedules, config.grid_eta_0
    labels = list(dict.fromkeys(row["label"] for row in rows))
    width, height = 2.9 + 4.4 * len(schedules), 2.3 + 0.45 * len(labels)
    figure, panels = new_figure(
        (width, height),
        "Which learning rates find the optimum?",
        f"Influence balancing, {config.num_steps:,} time steps, {config.num_keys} keys; "
        f"converged: |θ − θ*| < {config.tolerance:g}. TBPTT is deterministic: one run a cell.",
        [
            ((1.8 + 4.4 * i) / width, 1.2 / height, 4.2 / width, 1 - 2.15 / height)
            for i in range(len(schedules))
        ],
    )
    for axes, schedule in zip(panels, schedules, strict=True):
        cells = [row for row in rows if row["schedule"] == schedule]
        converged = [row["share"][outcomes.CONVERGED] for row in cells]
        shares = np.reshape(converged, (len(labels), len(eta_0)))
        axes.imshow(shares, cmap=_COLOURS, norm=Normalize(0, 1), aspect="auto")
        axes.set_title(f"η = η₀/√(1+t), t in {schedule}", fontsize=11)
        axes.set_xlabel("η₀")
        axes.set_xticks(range(len(eta_0)), [f"{rate:g}" for rate in eta_0])
        axes.set_yticks(range(len(labels)), labels if axes is panels[0] else [""] * len(labels))
        axes.set_xticks(np.arange(len(eta_0) - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(len(labels) - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=2)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        for (y, x), row in zip(np.ndindex(shares.shape), cells, strict=True):
            color = "black" if shares[y, x] > 0.55 else "white"
            axes.text(x, y, _cell(row), ha="center", va="center", fontsize=9, color=color)
    bar = figure.add_axes((1 - 1.0 / width, 1.2 / height, 0.15 / width, 1 - 2.15 / height))
    figure.colorbar(
        ScalarMappable(Normalize(0, 1), _COLOURS),
        cax=bar,
        label="share of keys converged",
        format=lambda value, _: f"{value:.0%}",
    )
    letters = "     ".join(f"{letter}  {name}" for name, letter in LETTERS.items())
    note = (
        f"Number: share of keys converged, in %.  Letter: the most frequent failure:   {letters}\n"
        "↺  most of the converged keys had first run off, more than "
        f"{outcomes.DIVERGED_FACTOR:.0f} times as far from θ* as they had started"
    )
    figure.text(0.15 / width, 0.35 / height, note, va="center")
    return figure


def _cell(row: Row) -> str:
    share = row["share"]
    failure = outcomes.main_failure(share)
    converged = share[outcomes.CONVERGED]
    words = [f"{100 * converged:.0f}"] if converged > 0 else []
    words += [LETTERS[failure]] if failure else []
    words += ["↺"] if row["share_recovered"] > converged / 2 else []
    return " ".join(words)
