"""The figure: error against horizon, one panel per estimator, the lines labelled at their ends."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.figures import COLOURS, STYLE, spread
from experiments.teacher_forcing.study import ArmResult, Baselines
from experiments.teacher_forcing.training import NAMES


def error_figure(
    results: Sequence[ArmResult], baselines: Baselines, *, num_seeds: int, title: str
) -> Figure:
    """Normalised RMSE against horizon: median over seeds, band from the smallest to the largest."""
    estimators = list(dict.fromkeys(result.arm.estimator for result in results))
    free_steps = list(dict.fromkeys(result.arm.free_steps for result in results))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4 * len(estimators) + 0.6, 5.4))
        panels = figure.subplots(1, len(estimators), sharex=True, sharey=True, squeeze=False)[0]
    figure.subplots_adjust(
        left=0.9 / figure.get_figwidth(), right=0.86, bottom=0.1, top=0.78, wspace=0.42
    )
    figure.text(0.012, 0.955, title, fontsize=14, fontweight="bold", va="center")
    subtitle = (
        "Root mean square error of a free run on Mackey-Glass, in standard deviations of the "
        f"series.\nLines: median of {num_seeds} seeds; bands: smallest to largest."
    )
    figure.text(0.012, 0.925, subtitle, fontsize=10, color="0.3", va="top", linespacing=1.35)
    for axes, estimator in zip(panels, estimators, strict=True):
        labels = []
        for result in results:
            if result.arm.estimator == estimator:
                colour = COLOURS[free_steps.index(result.arm.free_steps)]
                height = _draw(axes, result.errors, colour)
                labels.append((height, result.arm.label, colour))
        _draw_baselines(axes, baselines)
        _finish(axes, f"trained with {NAMES[estimator]}", results[0].errors.shape[-1])
        _label(axes, labels)
    panels[0].set_ylabel("normalised forecast error")
    return figure


def _draw(axes: Axes, errors: np.ndarray, colour: str) -> float:
    """Returns the height of the line at its end."""
    horizons = np.arange(1, errors.shape[-1] + 1)
    middle = np.median(errors, axis=0)
    axes.plot(horizons, middle, color=colour, linewidth=2.2, zorder=3)
    if len(errors) > 1:
        low, high = errors.min(axis=0), errors.max(axis=0)
        axes.fill_between(horizons, low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)
    return float(middle[-1])


def _draw_baselines(axes: Axes, baselines: Baselines) -> None:
    """Their words stand on the lines, not at the ends, where many lines meet."""
    highest = int(np.argmax(baselines.persistence))
    horizons = np.arange(1, len(baselines.constant) + 1)
    for values, words, dashes, index, side in (
        (baselines.persistence, "no change", (5, 2), highest, "center"),
        (baselines.constant, "always the mean", (1, 1.5), 0, "left"),
    ):
        axes.plot(horizons, values, color="0.45", linewidth=1.4, linestyle=(0, dashes))
        axes.annotate(
            words,
            (horizons[index], values[index]),
            xytext=(4 if side == "left" else 0, 3),
            textcoords="offset points",
            ha=side,
            va="bottom",
            color="0.35",
            fontsize=9.5,
        )


def _finish(axes: Axes, title: str, max_horizon: int) -> None:
    axes.set(xscale="log", yscale="log", xlim=(1, max_horizon), xlabel="steps ahead")
    axes.margins(y=0.08)  # room for words above the highest line
    ticks = [steps for steps in (1, 2, 5, 10, 20, 50, 100, 200) if steps <= max_horizon]
    axes.set_xticks(ticks, [str(steps) for steps in ticks])
    axes.xaxis.set_tick_params(which="minor", bottom=False)
    axes.set_title(title, fontweight="bold")
    axes.grid(True, which="major", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)


def _label(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Words right of the axes at these heights, moved apart where they are too near."""
    ends = np.array([(1.0, height) for height, *_ in labels])
    wanted = axes.transAxes.inverted().transform(axes.transData.transform(ends))[:, 1]
    heights = spread(np.nan_to_num(wanted, nan=1.0).tolist(), gap=0.055, low=0.0, high=1.0)
    for place, (_, words, colour) in zip(heights, labels, strict=True):
        axes.text(
            1.02,
            place,
            words,
            transform=axes.transAxes,
            va="center",
            color=colour,
            fontweight="bold",
            fontsize=9.5,
        )
