"""The table and the figure: error against horizon, for each arm and the two baselines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.common.figures import COLOURS, grid, label_ends, new_figure, plain_ticks
from experiments.common.report import Column, Row, median_and_range
from experiments.common.tuning import rate_text, rates_text

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
seeds. Learning rate: of {rates_text(config)}, the one with \
the smallest error on other windows, mean over horizons and over {config.num_tuning_runs} runs \
that are not reported (\\*: at the edge of the grid). Adam, with a rate that falls to zero over \
{config.num_steps:,} time steps of {config.batch_size} rows; GRU with {config.hidden_size} units."""


def make_figure(config: Any, rows: Sequence[Row]) -> Figure:
    """Normalised RMSE against horizon: median over seeds, band from the smallest to the largest."""
    estimators = list(dict.fromkeys(row["estimator"] for row in rows if row["arm"]))
    width = 6.4 * len(estimators) + 0.6
    figure, panels = new_figure(
        (width, 5.4),
        "Forecast error against horizon: fed the truth in training, or its own forecasts",
        "Root mean square error of a free run on Mackey-Glass, in standard deviations of the "
        f"series. Lines: median of {config.num_seeds} seeds; bands: smallest to largest.\n"
        "Dashed: the forecast that nothing changes; dotted: always the mean.",
        [((0.9 + 6.4 * i) / width, 0.1, 4.0 / width, 0.66) for i in range(len(estimators))],
    )
    shown = np.concatenate([row["errors"] for row in rows])
    shown = shown[np.isfinite(shown)]  # the baselines, at least
    limits = 0.9 * shown.min(), 1.1 * shown.max()
    horizons = np.arange(1, config.max_horizon + 1)
    for axes, estimator in zip(panels, estimators, strict=True):
        axes.set(xscale="log", yscale="log", xlim=(1, config.max_horizon), xlabel="steps ahead")
        axes.set(ylabel="normalised forecast error", ylim=limits)
        axes.set_title(f"trained with {estimator}", loc="left", fontweight="bold")
        labels = []
        for row in rows:
            errors = np.array(row["errors"])
            middle = np.median(errors, axis=0)
            if not row["arm"]:
                dashes = "--" if row["label"] == "persistence" else ":"
                axes.plot(horizons, middle, color="0.45", linewidth=1.4, linestyle=dashes)
            elif row["estimator"] == estimator:
                color = COLOURS[config.free_steps.index(row["free_steps"])]
                axes.plot(horizons, middle, color=color, linewidth=2.2, zorder=3)
                low, high = errors.min(axis=0), errors.max(axis=0)
                axes.fill_between(horizons, low, high, color=color, alpha=0.18, linewidth=0)
                labels.append((middle[-1], row["label"], {"color": color}))
        plain_ticks(axes.xaxis, [h for h in (1, 2, 5, 10, 20, 50, 100, 200) if h <= horizons[-1]])
        grid(axes)
        label_ends(axes, labels)
    return figure
