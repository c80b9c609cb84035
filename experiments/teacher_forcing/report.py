"""Numbers of the study: one row per arm, and one per baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common.metrics import MetricsWriter
from experiments.common.report import Column, Row
from experiments.teacher_forcing.forecasts import accurate_steps
from experiments.teacher_forcing.study import ArmResult, Baselines
from experiments.teacher_forcing.training import NAMES

HORIZONS = (1, 10, 50, 100, 200)


def rows_of(config: Any, results: Sequence[ArmResult], baselines: Baselines) -> list[Row]:
    """One row per arm, then the two baselines."""
    rows = [_arm_row(config, result) for result in results]
    for name in ("persistence", "constant"):
        errors = getattr(baselines, name)[None]
        row = {"estimator": None, "free_steps": None, "label": name, "learning_rate": None}
        rows.append(row | _error_fields(config, errors))
    return rows


def _arm_row(config: Any, result: ArmResult) -> Row:
    return {
        "estimator": NAMES[result.arm.estimator],
        "free_steps": result.arm.free_steps,
        "label": result.arm.label,
        "learning_rate": result.rate,
        "rate_at_edge": result.at_edge,
        "validation_scores": result.scores.tolist(),
        "final_training_loss": result.training_loss[:, -1].tolist(),
        **_error_fields(config, result.errors),
    }


def _error_fields(config: Any, errors: np.ndarray) -> Row:
    steps = [accurate_steps(row, config.threshold) for row in errors]
    return {
        "errors": {
            str(horizon): errors[:, horizon - 1].tolist() for horizon in horizons_of(config)
        },
        "mean_error": errors.mean(axis=-1).tolist(),
        "accurate_steps": steps,
    }


def horizons_of(config: Any) -> list[int]:
    """The horizons of the table that the forecasts reach."""
    return [horizon for horizon in HORIZONS if horizon <= config.max_horizon]


def columns(config: Any) -> tuple[Column, ...]:
    """Of the table."""
    return (
        ("estimator", lambda row: row["estimator"] or "baseline"),
        ("fed in training", lambda row: row["label"]),
        ("learning rate", _rate_words),
        *(
            (f"error {horizon} ahead", lambda row, h=horizon: spread(row["errors"][str(h)]))
            for horizon in horizons_of(config)
        ),
        ("mean over horizons", lambda row: spread(row["mean_error"])),
        (f"steps below {config.threshold:g}", lambda row: spread(row["accurate_steps"], "{:.0f}")),
    )


def _rate_words(row: Row) -> str:
    if row["learning_rate"] is None:
        return ""
    return f"{row['learning_rate']:g}" + (" (edge)" if row["rate_at_edge"] else "")


def spread(values: Sequence[float], form: str = "{:.3g}") -> str:
    """Median [smallest, largest], or the one value."""
    if len(values) == 1:
        return form.format(values[0])
    numbers = (np.median(values), min(values), max(values))
    middle, low, high = (form.format(number) for number in numbers)
    return f"{middle} [{low}, {high}]"


def note(config: Any) -> str:
    """What stands under the table."""
    return (
        f"Errors: root mean square over {config.num_windows} windows, divided by the standard "
        f"deviation of the series, after {config.warm_up} true values. Median [smallest, largest] "
        f"of {config.num_seeds} seeds. Learning rate: of {_listed(config.learning_rates)}, the one "
        "with the smallest validation error (median over seeds of the mean over horizons); "
        "(edge): the smallest or largest of them.\n\n"
        "Command: `python -m experiments.teacher_forcing --config "
        "configs/teacher_forcing/default.py --workdir DIR`; the configuration is in config.json. "
        f"{config.num_steps:,} time steps of {config.batch_size} rows, GRU with "
        f"{config.hidden_size} units, segments of {config.mean_length} steps (ARTBP: on average, "
        f"polynomial law with α = {config.alpha:g})."
    )


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def write_curves(writer: MetricsWriter, results: Sequence[ArmResult], baselines: Baselines) -> None:
    """One line per arm and seed, then the baselines: error against horizon."""
    for result in results:
        for index, errors in enumerate(result.errors):
            writer.write(
                {
                    "kind": "forecast",
                    "estimator": result.arm.estimator,
                    "free_steps": result.arm.free_steps,
                    "seed_index": index,
                    "errors": [float(f"{error:.5g}") for error in errors],
                }
            )
    for name in ("persistence", "constant"):
        errors = [float(f"{error:.5g}") for error in getattr(baselines, name)]
        writer.write({"kind": "baseline", "name": name, "errors": errors})
