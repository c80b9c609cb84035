"""Study "rates": a heat map of the keys that converge, arm by learning rate, by schedule."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.common.figures import new_figure
from experiments.common.report import Report, Row, table
from experiments.influence_balancing import outcomes
from experiments.influence_balancing.outcomes import COLUMNS, NOTE, rows_of
from experiments.influence_balancing.training import Run

LETTERS = {outcomes.NOT_YET: "N", outcomes.WRONG_DIRECTION: "W", outcomes.DIVERGED: "D"}


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
    width, height = 2.3 + 4.4 * len(schedules), 2.4 + 0.45 * len(labels)
    box = 4.2 / width, 1 - 2.05 / height
    letters = ",  ".join(f"{letter}  {name}" for name, letter in LETTERS.items())
    figure, panels = new_figure(
        (width, height),
        "Which learning rates find the optimum?",
        f"Influence balancing, {config.num_steps:,} time steps, {config.num_keys} keys; "
        f"converged: |θ − θ*| < {config.tolerance:g}. TBPTT is deterministic: one run a cell.\n"
        f"Number: share of keys converged, in %. Letter: the most frequent failure:  {letters}.\n"
        "↺ : most of the converged keys had first run off, more than "
        f"{outcomes.DIVERGED_FACTOR:.0f} times as far from θ* as they had started.",
        [((2.2 + 4.4 * i) / width, 0.6 / height, *box) for i in range(len(schedules))],
    )
    for axes, schedule in zip(panels, schedules, strict=True):
        cells = [row for row in rows if row["schedule"] == schedule]
        converged = [row["share"][outcomes.CONVERGED] for row in cells]
        shares = np.reshape(converged, (len(labels), len(eta_0)))
        tile: Any = {"cmap": "cividis", "vmin": 0, "vmax": 1, "edgecolor": "white", "linewidth": 2}
        axes.pcolormesh(range(len(eta_0)), range(len(labels)), shares, shading="nearest", **tile)
        axes.invert_yaxis()
        axes.set_title(f"η = η₀/√(1+t), t in {schedule}", fontsize=11)
        axes.set_xlabel("η₀")
        axes.set_xticks(range(len(eta_0)), [f"{rate:g}" for rate in eta_0])
        axes.set_yticks(range(len(labels)), labels if axes is panels[0] else [""] * len(labels))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for (y, x), row in zip(np.ndindex(shares.shape), cells, strict=True):
            color = "black" if shares[y, x] > 0.55 else "white"
            axes.text(x, y, _cell(row), ha="center", va="center", fontsize=9, color=color)
    return figure


def _cell(row: Row) -> str:
    share = row["share"]
    failure = outcomes.main_failure(share)
    converged = share[outcomes.CONVERGED]
    words = [f"{100 * converged:.0f}"] if converged > 0 else []
    words += [LETTERS[failure]] if failure else []
    words += ["↺"] if row["share_recovered"] > converged / 2 else []
    return " ".join(words)
