"""Makes the table: predicted and observed at every trained point, and which arm won."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common.arms import Arm
from experiments.common.report import Column, Row
from experiments.phase.study import Point


def _lead(row: Row) -> str:
    if not row["predicted_winner"]:
        return ""
    lead = f"{_number(row['lead'])} ± {_number(row['lead_standard_error'])}"
    return lead + {"yes": "", "tie": " (tie)", "no": " (no)"}[row["verdict"]]


def _number(value: float) -> str:
    return f"{value:.2g}" if np.isfinite(value) else "none"


COLUMNS: list[Column] = [
    ("memory ÷ L0", "{memory:g}"),
    ("rows", "{batch}"),
    ("estimator", "{estimator}"),
    ("excess loss, predicted", lambda row: _number(row["predicted"])),
    ("observed", lambda row: f"{_number(row['observed'])} ± {_number(row['standard_error'])}"),
    ("median", lambda row: _number(row["median"])),
    ("rate, predicted", lambda row: _number(row["predicted_rate"])),
    ("chosen", lambda row: _number(row["rate"]) + "\\*" * row["at_edge"]),
    ("predicted to win", lambda row: "yes" if row["predicted_winner"] else ""),
    ("least observed", lambda row: "yes" if row["winner"] else ""),
    ("predicted kind ahead by", _lead),
]


def table_rows(arms: Sequence[Arm], points: Sequence[Point]) -> list[Row]:
    """Makes a row for each arm at each point."""
    rows = []
    for point in points:
        for i, arm in enumerate(arms):
            choice, excess = point.trained[i]
            rows.append(
                {
                    "memory": point.memory,
                    "batch": point.batch,
                    "arm": arm.text,
                    "estimator": arm.label,
                    "predicted": point.predicted[i].excess,
                    "predicted_rate": point.predicted[i].rate,
                    "observed": float(excess.mean()),
                    "standard_error": float(excess.std(ddof=1) / np.sqrt(len(excess))),
                    "median": float(np.median(excess)),
                    "rate": choice.rate,
                    "at_edge": choice.at_edge,
                    "predicted_winner": i == point.predicted_winner,
                    "winner": i == point.observed_winner,
                    "verdict": point.verdict,
                    "lead": point.difference[0],
                    "lead_standard_error": point.difference[1],
                    "losses": [float(f"{loss:.6g}") for loss in excess],
                }
            )
    return rows


def note(config: Any, points: Sequence[Point]) -> str:
    """Explains the columns, and counts how often the prediction held."""
    verdicts = [point.verdict for point in points]
    return f"""\
The predicted kind, ARTBP or TBPTT, is ahead of the other by more than two standard errors at \
{verdicts.count("yes")} of {len(points)} points; at {verdicts.count("tie")} the trainings do not \
tell the kinds apart; at {verdicts.count("no")} the other kind is ahead. "Ahead by": the best of \
the other kind minus the best of the predicted one, ± standard error over paired seeds.

Excess loss: ½ Λ (θ − θ\\*)² after {config.num_steps:,} time steps of SGD from \
θ = {config.start:g}; mean ± standard error over {config.num_seeds} seeds, at the rate with the \
least mean over {config.num_tuning_runs} other seeds, of {config.rates_per_decade} per decade \
from 10^{config.first_rate:g} to 10^{config.last_rate:g} (\\*: the first or the last of them). The \
prediction takes bias, data noise and the exact variance of the boundaries, and nothing from the \
trainings. There is none where the variance of a law is infinite, or cannot be summed from lags of \
four memories. The system (`experiments/phase/system.py`) has S = {config.later_power:g}, \
σ = {config.noise:g}, L0 = {config.mean_length}."""
