"""Four panels: gradient norms, trainings, the bound on a clipped step, the price of clipping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.figures import COLOURS, STYLE, spread
from experiments.common.report import Row
from experiments.stability.bound import Steps
from experiments.stability.methods import NAMES
from experiments.stability.report import best_row, clip_words, part
from experiments.stability.training import ARMS, FAILED_ABOVE

BLUE, GREEN, _, VERMILLION, ORANGE, PURPLE, *_ = COLOURS
TRUNCATION_COLOURS = {
    "bptt": BLUE,
    "tbptt": GREEN,
    "artbp_polynomial": VERMILLION,
    "artbp_geometric": ORANGE,
}
CLIP_DASHES: dict[str, Any] = {"none": "-", "norm": (0, (4, 1.5)), "value": (0, (1, 1))}
# Where what has failed is drawn.
TOP = 1.6 * FAILED_ABOVE


def draw(config: Any, rows: Sequence[Row], steps: Mapping[float, Steps]) -> Figure:
    """The figure."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13.5, 9.6))
        norms = figure.add_axes((0.06, 0.565, 0.29, 0.32))
        trainings = figure.add_axes((0.545, 0.565, 0.27, 0.32))
        bound = figure.add_axes((0.06, 0.065, 0.29, 0.36))
        progress = figure.add_axes((0.545, 0.29, 0.27, 0.135))
        bias = figure.add_axes((0.545, 0.065, 0.27, 0.15))
    title = (
        "Exploding gradients: truncation tames them, the unbiased estimator and clipping each pay"
    )
    figure.text(0.012, 0.972, title, fontsize=15, fontweight="bold", va="center")
    subtitle = (
        f"tanh network of {config.hidden_size} units on Mackey-Glass, SGD. ρ: spectral radius of "
        f"its first recurrent weights. Segments of {config.mean_length} steps, on average, in "
        f"sequences of {config.sequence_length}."
    )
    figure.text(0.012, 0.951, subtitle, fontsize=10, color="0.3", va="top")
    _norms(norms, part(rows, "norms"))
    _trainings(trainings, part(rows, "training"), config)
    _bound(bound, steps, part(rows, "bound"))
    _progress(progress, part(rows, "progress"))
    _bias(bias, part(rows, "bias"))
    for axes in (norms, trainings, bound, progress, bias):
        axes.grid(True, which="major", color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure


def _norms(axes: Axes, rows: Sequence[Row]) -> None:
    axes.set(yscale="log", xlabel="spectral radius ρ", ylabel="norm of the gradient")
    axes.set_title("1  Gradient norm of one sequence", fontweight="bold", loc="left")
    labels = []
    for name, colour in TRUNCATION_COLOURS.items():
        own = [row for row in rows if row["truncation"] == name]
        radii = [row["spectral_radius"] for row in own]
        low, middle, high = (
            np.array([row["quantiles"][q] for row in own]) for q in ("0.05", "0.5", "0.95")
        )
        axes.plot(radii, middle, color=colour, linewidth=2.2, marker="o", markersize=4, zorder=3)
        axes.fill_between(radii, low, high, color=colour, alpha=0.13, linewidth=0)
        labels.append((middle[-1], NAMES[name], {"color": colour}))
    axes.set_xticks(sorted({row["spectral_radius"] for row in rows}))
    _label_ends(axes, labels)
    _small(axes, 0.02, 0.98, "lines: median of draws\nbands: 5 % to 95 %")


def _trainings(axes: Axes, rows: Sequence[Row], config: Any) -> None:
    axes.set(xscale="log", yscale="log", xlabel="learning rate η", ylabel="loss at the end")
    axes.set_title(f"2  Training from ρ = {config.figure_radius:g}", fontweight="bold", loc="left")
    rows = [row for row in rows if row["spectral_radius"] == config.figure_radius]
    labels = []
    for arm in ARMS:
        pen = {"color": TRUNCATION_COLOURS[arm.truncation], "linestyle": CLIP_DASHES[arm.clip]}
        own = [row for row in rows if row["arm"] == arm.label]
        # A line ends where most runs fail at this rate and all larger ones: beyond, the lines
        # would all lie upon each other.
        good = np.flatnonzero([row["loss_median"] <= FAILED_ABOVE for row in own])
        end = int(good[-1]) + 2 if len(good) else 1
        own, num_rates = own[:end], len(own)
        rates = [row["learning_rate"] for row in own]
        height = _outcomes(axes, rates, own, pen)[-1]
        best = best_row(own)
        if best["failed"] == 0:
            at = best["learning_rate"], best["loss_median"]
            axes.plot(*at, "D", color=pen["color"], markersize=9, mec="white", zorder=5)
        failing = [row["learning_rate"] for row in own if row["failed"] > 0]
        words = arm.label + (f"\nfirst failure at η = {failing[0]:g}" if failing else "")
        labels.append((height * (2 - len(own) / num_rates), words, pen))
    _level(axes, 1.0)
    axes.set_ylim(top=1.3 * TOP)
    _small(
        axes,
        0.0,
        -0.155,
        f"median of {config.num_seeds} seeds; a run fails when its loss is above {FAILED_ABOVE:g}"
        "\n○ some fail   ✕ most fail   ◆ best where none fails   – – predicting the mean",
    )
    _label_ends(axes, labels, gap=0.115)


def _outcomes(
    axes: Axes, places: Sequence[float] | np.ndarray, rows: Sequence[Row], pen: Mapping[str, Any]
) -> np.ndarray:
    """Median losses: dots, hollow where some runs fail, and a cross at the top where most do.

    Returns:
        The heights drawn.
    """
    losses = np.array([row["loss_median"] for row in rows])
    heights = np.where(losses > FAILED_ABOVE, TOP, losses)
    colour = pen["color"]
    axes.plot(places, heights, linewidth=2.0, zorder=3, **pen)
    for place, height, row in zip(places, heights, rows, strict=True):
        if height == TOP:
            axes.plot(place, height, "X", color=colour, markersize=10, zorder=4)
        elif row["failed"] > 0:
            axes.plot(place, height, "o", mfc="white", mec=colour, mew=1.8, markersize=7, zorder=4)
        else:
            axes.plot(place, height, "o", color=colour, markersize=4, zorder=4)
    return heights


def _bound(axes: Axes, steps: Mapping[float, Steps], rows: Sequence[Row]) -> None:
    axes.set(yscale="log", xlabel="spectral radius ρ at the start of the run")
    axes.set_ylabel("|change of the loss| ÷ (L · η · $\\theta_c$)")
    held, total = (sum(row[name] for row in rows) for name in ("num_held", "num_steps"))
    title = f"3  Steps of clipped runs: bound held at {held:,} of {total:,}"
    axes.set_title(title, fontweight="bold", loc="left")
    step_bound = rows[0]["learning_rate"] * rows[0]["clip_bound"]
    for place, one in enumerate(steps.values()):
        ratio = one.change / (one.lipschitz * step_bound)
        across = place + np.linspace(-0.3, 0.3, len(ratio))
        axes.plot(across, ratio, "o", color=VERMILLION, markersize=2.6, alpha=0.5, mew=0)
        middle = np.median(ratio)
        axes.plot([place - 0.33, place + 0.33], [middle, middle], color="0.1", linewidth=2)
    _level(axes, 1.0, "bound")
    axes.set_ylim(top=30)
    axes.set_xticks(range(len(steps)), [f"{radius:g}" for radius in steps])
    shares = [row["share_clipped"] for row in rows]
    axes.text(
        1.02,
        0.5,
        "one dot: one step\nfrom left to right:\nfirst to last\n\nblack: median\n\n"
        f"clipped to $\\theta_c$: {100 * min(shares):.0f} to\n"
        f"{100 * max(shares):.0f} % of the steps\n\n"
        "L: largest norm\nof the gradient of\nthe loss along\nthe step",
        transform=axes.transAxes,
        va="center",
        color="0.35",
        fontsize=9,
    )


def _progress(axes: Axes, rows: Sequence[Row]) -> None:
    axes.set(xscale="log", yscale="log", ylabel="loss at the end")
    radius = rows[0]["spectral_radius"]
    title = f"4  Price of clipping: progress (ARTBP, ρ = {radius:g})"
    axes.set_title(title, fontweight="bold", loc="left")
    rates = list(dict.fromkeys(row["learning_rate"] for row in rows))
    labels = []
    shades = matplotlib.colormaps["cividis"](np.linspace(0.1, 0.8, len(rates)))
    for rate, colour in zip(rates, shades, strict=True):
        own = [row for row in rows if row["learning_rate"] == rate]
        bounds = _with_unclipped(own, "norm_bound")
        heights = _outcomes(axes, bounds, own, {"color": colour})
        labels.append((heights[-1], f"η = {rate:g}", {"color": colour}))
    _unclipped_tick(axes, bounds)
    _label_ends(axes, labels, gap=0.14)


def _bias(axes: Axes, rows: Sequence[Row]) -> None:
    axes.set(xscale="log", xlabel="clip bound, on the norm or on each value")
    axes.set_ylabel("|mean − BPTT|\n÷ |BPTT|")
    axes.set_title("Bias of the mean of clipped gradients", fontweight="bold", loc="left")
    for kind, colour in (("norm", VERMILLION), ("value", PURPLE)):
        own = [row for row in rows if clip_words(row)[0] in (kind, "none")]
        bounds = _with_unclipped(own, f"{kind}_bound")
        low, middle, high = (
            np.array([row[f"relative_bias_{word}"] for row in own])
            for word in ("smallest", "median", "largest")
        )
        axes.plot(bounds, middle, color=colour, marker="o", markersize=4, linewidth=2, zorder=3)
        axes.fill_between(bounds, low, high, color=colour, alpha=0.15, linewidth=0)
        at = len(middle) - 3
        axes.annotate(
            f"by {kind}",
            (bounds[at], middle[at]),
            xytext=(8, 4) if kind == "norm" else (-8, -4),
            textcoords="offset points",
            ha="left" if kind == "norm" else "right",
            va="bottom" if kind == "norm" else "top",
            color=colour,
            fontweight="bold",
        )
    axes.set_ylim(bottom=0)
    unclipped = rows[-1]
    low, high = (unclipped[f"relative_standard_error_{w}"] for w in ("smallest", "largest"))
    words = f"standard error\n{low:.2f} to {high:.2f}"
    _unclipped_tick(axes, bounds)
    _label_ends(axes, [(unclipped["relative_bias_median"], words, {"color": "0.35"})])
    axes.text(
        1.02,
        1.0,
        f"line: median of {unclipped['num_draws']}\ndraws of weights\nand sequence\n"
        "band: all draws",
        transform=axes.transAxes,
        va="top",
        color="0.35",
        fontsize=8.5,
    )


def _with_unclipped(rows: Sequence[Row], field: str) -> np.ndarray:
    """The bounds; no clipping stands right of the largest."""
    bounds = np.array([row[field] for row in rows])
    return np.where(np.isfinite(bounds), bounds, 4 * bounds[np.isfinite(bounds)].max())


def _unclipped_tick(axes: Axes, bounds: np.ndarray) -> None:
    """`bounds` as `_with_unclipped` returns them."""
    axes.set_xticks(bounds, [*(f"{bound:g}" for bound in bounds[:-1]), "none"])
    axes.xaxis.set_tick_params(which="minor", bottom=False)


def _small(axes: Axes, x: float, y: float, words: str) -> None:
    axes.text(x, y, words, transform=axes.transAxes, va="top", fontsize=8.5, color="0.35")


def _level(axes: Axes, height: float, words: str = "") -> None:
    """A horizontal line, dashed where it has no words of its own."""
    style: Any = "-" if words else (0, (4, 3))
    axes.axhline(height, color="0.3", linewidth=1.2, linestyle=style, zorder=1)
    axes.annotate(
        words,
        (0, height),
        xycoords=("axes fraction", "data"),
        xytext=(4, 3),
        textcoords="offset points",
        fontsize=8.5,
        color="0.3",
    )


def _label_ends(
    axes: Axes, labels: Sequence[tuple[float, str, Mapping[str, Any]]], *, gap: float = 0.065
) -> None:
    """Words right of the axes at these heights, moved apart where they are too near.

    A label is (height, words, pen): with a sample of the line where the pen has a linestyle.
    """
    ordered = sorted(labels, key=lambda label: label[0])
    heights = np.array([(1.0, label[0]) for label in ordered])
    places = axes.transAxes.inverted().transform(axes.transData.transform(heights))[:, 1]
    places = spread(places.tolist(), gap=gap, low=0.0, high=1.0)
    for place, (_, words, pen) in zip(places, ordered, strict=True):
        left = 1.02
        if "linestyle" in pen:
            sample: Any = {"transform": axes.transAxes, "clip_on": False, "linewidth": 2.0}
            axes.plot([left, left + 0.085], [place, place], **sample, **pen)
            left += 0.105
        axes.text(
            left,
            place,
            words,
            transform=axes.transAxes,
            va="center",
            color=pen["color"],
            fontweight="bold",
            fontsize=9.5,
            linespacing=0.95,
        )
