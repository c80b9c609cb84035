"""Paired differences with intervals, and the bias and noise that the runs measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments.common.figures import COLOURS, STYLE
from experiments.ptb_study import watched
from experiments.ptb_study.arms import Arm
from experiments.ptb_study.report import (
    LEVEL,
    Outcome,
    paired_difference,
    paired_differences,
    unfinished,
)

_MEASURED = {
    "artbp_noise": ("noise of ARTBP", COLOURS[0]),
    "carry_error": ("carry of older parameters", COLOURS[7]),
}
_BIAS_COLOURS = (COLOURS[4], COLOURS[3], COLOURS[5])
_BINS = 12
_LINEAR = 0.1  # bits per character


def draw(
    arms: Mapping[str, Arm],
    outcomes: Sequence[Outcome],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    seeds: Sequence[int],
    watched_arm: str,
) -> Figure:
    """Both panels; the right one of the arm `watched_arm`, and empty where it measured nothing."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        _differences(left, arms, outcomes, seeds)
        _along_the_training(right, rows.get(watched_arm, []), watched_arm)
        return figure


def _differences(
    axes: Any, arms: Mapping[str, Arm], outcomes: Sequence[Outcome], all_seeds: Sequence[int]
) -> None:
    # A seed that came apart must not squeeze the others into one dot.
    axes.set_xscale("symlog", linthresh=_LINEAR, linscale=2, subs=range(2, 10))
    paired = [(name, arm.reference) for name, arm in arms.items() if arm.reference in arms]
    for y, (name, reference) in enumerate(paired):
        difference = paired_difference(outcomes, name, reference, "test_bpc")
        each = paired_differences(outcomes, name, reference, "test_bpc")
        axes.plot(
            each,
            np.full(len(each), y - 0.22),
            "|",
            color=COLOURS[7],
            markersize=9,
        )
        missing = unfinished(outcomes, name, reference, all_seeds)
        told_apart = abs(difference.mean) > difference.half_width and not missing
        colour = COLOURS[7] if not told_apart else COLOURS[3 if difference.mean > 0 else 1]
        if missing:
            text = f"{difference.n} of {len(all_seeds)} seeds, nothing is claimed"
            axes.annotate(
                text,
                (1, y + 0.3),
                xycoords=axes.get_yaxis_transform(),
                ha="right",
                fontsize=8,
            )
        axes.errorbar(
            difference.mean, y, xerr=difference.half_width, fmt="o", color=colour, linewidth=2
        )
    axes.axvline(0, color=COLOURS[6], linewidth=1)
    axes.set_yticks(
        range(len(paired)), [f"{name}\nminus {reference}" for name, reference in paired]
    )
    axes.set_ylim(max(len(paired), 1) - 0.5, -0.5)
    low, high = axes.get_xlim()
    ticks = [t for t in (-10, -1, -0.1, -0.05, 0, 0.05, 0.1, 1, 10) if low <= t <= high]
    axes.set_xticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    axes.set_xlabel(
        "test bits per character, paired by seed (left is better)\n"
        f"linear within ±{_LINEAR:g}, logarithmic beyond"
    )
    axes.set_title(f"Differences: mean and {LEVEL:.0%} interval; ticks are seeds", fontsize=10)


def _along_the_training(axes: Any, rows: Sequence[Mapping[str, Any]], arm: str) -> None:
    axes.set_title(f"Measured while {arm} trains: errors of one window's gradient", fontsize=10)
    if not rows:
        return
    steps = np.array([row["time_step"] for row in rows], float)
    edges = np.linspace(0, steps.max() * (1 + 1e-9), _BINS + 1)
    bins = np.searchsorted(edges, steps, side="right") - 1
    biases = [name for name in watched.names(rows) if name.startswith("bias_")]
    styles = {
        name: (f"error of TBPTT {name.removeprefix('bias_')}", colour)
        for name, colour in zip(biases, _BIAS_COLOURS, strict=False)
    }
    ends = []
    for name, (label, colour) in {**styles, **_MEASURED}.items():
        if name not in rows[0]:
            continue
        values = np.array([np.nan if r[name] is None else r[name] for r in rows])
        line = [
            np.nanmedian(values[bins == b]) if (bins == b).any() else np.nan for b in range(_BINS)
        ]
        axes.plot((edges[:-1] + edges[1:]) / 2 / 1000, line, color=colour, linewidth=2)
        ends.append((line[-1], label, colour))
    axes.set(yscale="log", xlabel="time steps, thousands", xlim=(0, edges[-1] / 1000))
    _label_ends(axes, ends, edges[-1] / 1000)
    axes.set_ylabel("÷ norm of the window's gradient, median")


def _label_ends(axes: Any, ends: Sequence[tuple[float, str, Any]], x: float) -> None:
    """Labels to the right of the lines, moved apart where they would touch."""
    low, high = np.log(axes.get_ylim())
    least = 0.055 * (high - low)
    at = -np.inf
    for y, label, colour in sorted(ends):
        at = max(np.log(y), at + least)
        axes.annotate(
            label,
            (x, np.exp(at)),
            (4, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )
