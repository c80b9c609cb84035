"""The table: one row per arm, and one per baseline."""

from typing import Any

from experiments.common.report import Column, Row, median_and_range
from experiments.common.tuning import rate_text

HORIZONS = (1, 10, 50, 100, 200)


def columns(config: Any) -> list[Column]:
    """The columns, with the horizons that the forecasts reach."""

    def error(horizon: int) -> Column:
        def text(row: Row) -> str:
            return median_and_range([errors[horizon - 1] for errors in row["errors"]])

        return f"error {horizon} ahead", text

    def rate(row: Row) -> str:
        return rate_text(row["learning_rate"], row["rate_at_edge"]) if row["arm"] else ""

    return [
        ("estimator", lambda row: row["estimator"] if row["arm"] else "baseline"),
        ("fed in training", "{label}"),
        ("learning rate", rate),
        *(error(horizon) for horizon in HORIZONS if horizon <= config.max_horizon),
        ("mean over horizons", lambda row: median_and_range(row["mean_error"])),
        (
            f"steps below {config.threshold:g}",
            lambda row: median_and_range(row["accurate_steps"], "{:.0f}"),
        ),
    ]


def note(config: Any) -> str:
    """What the table cannot hold."""
    return f"""\
Errors: root mean square over {config.num_windows} windows, divided by the standard deviation of \
the series, after {config.warm_up} true values. Median [smallest, largest] of {config.num_seeds} \
seeds. Learning rate: of {", ".join(f"{rate:g}" for rate in config.learning_rates)}, the one with \
the smallest error on other windows, mean over horizons and over {config.num_tuning_runs} runs \
that are not reported (\\*: at the edge of the grid). Adam, with a rate that falls to zero over \
{config.num_steps:,} time steps of {config.batch_size} rows; GRU with {config.hidden_size} units."""
