"""Five panels: gradient norms, trainings, the bound on a clipped step, the price of clipping."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.arms import parse
from experiments.common.figures import COLOURS, colors, grid, label_ends, new_figure, plain_ticks
from experiments.common.report import Row, select
from experiments.stability.config import trained
from experiments.stability.report import clip_words
from experiments.stability.training import FAILED_ABOVE

CLIP_DASHES: dict[str, Any] = {"": "-", "norm": (0, (4, 1.5)), "value": (0, (1, 1))}
TOP = 1.6 * FAILED_ABOVE  # where what has failed is drawn


def draw(config: Any, rows: Sequence[Row]) -> Figure:
    """The figure."""
    figure, panels = new_figure(
        (13.5, 9.6),
        "Exploding gradients: truncation tames them, the unbiased estimator and clipping each pay",
        f"tanh network of {config.hidden_size} units on Mackey-Glass, SGD. ρ: spectral radius of "
        f"its first recurrent weights. Sequences of {config.sequence_length} steps.",
        [
            (0.06, 0.565, 0.29, 0.32),
            (0.545, 0.565, 0.27, 0.32),
            (0.06, 0.065, 0.29, 0.36),
            (0.545, 0.29, 0.27, 0.135),
            (0.545, 0.065, 0.27, 0.15),
        ],
    )
    bound = select(rows, part="bound")
    held, total = (sum(row[name] for row in bound) for name in ("num_held", "num_steps"))
    radius = config.clipping_radius
    drawn = [
        (_norms, "norms", "1  Gradient norm of one sequence"),
        (_trainings, "training", f"2  Training from ρ = {config.figure_radius:g}"),
        (_bound, "bound", f"3  Steps of clipped runs: {held:,} of {total:,} hold"),
        (_progress, "progress", f"4  Price of clipping: progress (ARTBP, ρ = {radius:g})"),
        (_bias, "bias", "Bias of the mean of clipped gradients: median, all draws"),
    ]
    for axes, (panel, part, title) in zip(panels, drawn, strict=True):
        axes.set_title(title, fontweight="bold", loc="left")
        panel(axes, config, select(rows, part=part))
        grid(axes)
    return figure


def _norms(axes: Axes, config: Any, rows: Sequence[Row]) -> None:
    axes.set(yscale="log", xlabel="spectral radius ρ", ylabel="norm: median of draws, 5 to 95 %")
    labels = []
    for arm, color in colors([parse(text) for text in config.arms]).items():
        quantiles = [row["quantiles"] for row in rows if row["arm"] == arm.text]
        ends = _band(axes, config.spectral_radii, quantiles, ("0.05", "0.5", "0.95"), color=color)
        labels.append((ends[-1], arm.label, {"color": color}))
    plain_ticks(axes.xaxis, config.spectral_radii)
    label_ends(axes, labels)


def _band(axes: Axes, xs: Any, rows: Sequence[Row], fields: Any, **pen: Any) -> list[float]:
    """A line with a band, of three fields of the rows; returns the heights of the line."""
    low, middle, high = ([row[field] for row in rows] for field in fields)
    axes.plot(xs, middle, "o-", linewidth=2, markersize=4, **pen)
    axes.fill_between(xs, low, high, color=pen["color"], alpha=0.14, linewidth=0)
    return middle


def _trainings(axes: Axes, config: Any, rows: Sequence[Row]) -> None:
    axes.set(xscale="log", yscale="log", ylabel=f"loss at the end, median of {config.num_seeds}")
    axes.set_xlabel(
        f"learning rate η;  ○ some runs end above {FAILED_ABOVE:g},  ✕ most do,\n"
        "◆ the rate chosen on other runs;  line: predicting the mean"
    )
    labels = []
    for arm, clip, label in trained(config):
        pen = {"color": arm.color, "linestyle": CLIP_DASHES[clip]}
        own = select(rows, label=label, spectral_radius=config.figure_radius)
        failing = [row["learning_rate"] for row in own if row["failed"] > 0]
        # A line ends where most runs fail at this rate and all larger ones: beyond, the lines
        # would all lie upon each other.
        good = np.flatnonzero([row["loss_median"] <= FAILED_ABOVE for row in own])
        drawn = own[: int(good[-1]) + 2 if len(good) else 1]
        height = _outcomes(axes, [row["learning_rate"] for row in drawn], drawn, pen)[-1]
        for row in select(drawn, chosen=True):
            at = row["learning_rate"], min(row["loss_median"], TOP)
            axes.plot(*at, "D", color=arm.color, markersize=9, mec="white", zorder=5)
        text = label.replace(", clipped", "\nclipped")
        text += f"\nfirst failure at η = {failing[0]:g}" if failing else ""
        # The earlier a line ends at the top, the higher its label.
        labels.append((height * (2 - len(drawn) / len(own)), text, pen))
    axes.axhline(1.0, color="0.3", linewidth=1.2, zorder=1)
    axes.set_ylim(top=1.3 * TOP)
    label_ends(axes, labels, gap=0.16)


def _outcomes(axes: Axes, places: Any, rows: Sequence[Row], pen: Mapping[str, Any]) -> np.ndarray:
    """Draws median losses, hollow where some fail, a cross where most do; gives the heights."""
    losses = np.array([row["loss_median"] for row in rows])
    heights = np.where(losses > FAILED_ABOVE, TOP, losses)
    axes.plot(places, heights, linewidth=2.0, zorder=3, **pen)
    dot: dict[str, Any] = {"color": pen["color"], "markersize": 4, "zorder": 4}
    for place, height, row in zip(places, heights, rows, strict=True):
        if height == TOP:
            axes.plot(place, height, "X", **dot | {"markersize": 10})
        elif row["failed"] > 0:
            axes.plot(place, height, "o", **dot | {"mfc": "white", "mew": 1.8, "markersize": 7})
        else:
            axes.plot(place, height, "o", **dot)
    return heights


def _bound(axes: Axes, config: Any, rows: Sequence[Row]) -> None:
    axes.set(yscale="log", ylabel="|change of the loss| ÷ (L · η · $\\theta_c$)")
    axes.set_xlabel("spectral radius ρ at the start; dots: steps, first to last; line: median")
    for place, row in enumerate(rows):
        across = place + np.linspace(-0.3, 0.3, len(row["ratios"]))
        axes.plot(across, row["ratios"], "o", color=COLOURS[0], markersize=2.6, alpha=0.5, mew=0)
        axes.plot([place - 0.33, place + 0.33], [row["median_ratio"]] * 2, color="0.1", linewidth=2)
    axes.axhline(1.0, color="0.3", linewidth=1.2, zorder=1)
    axes.set_ylim(top=3)
    axes.set_xticks(range(len(rows)), [f"{row['spectral_radius']:g}" for row in rows])
    shares = [100 * row["share_clipped"] for row in rows]
    text = f"bound\n\n{min(shares):.0f} to {max(shares):.0f} %\nof the steps\nare clipped"
    label_ends(axes, [(1.0, text, {"color": "0.35"})])


def _progress(axes: Axes, config: Any, rows: Sequence[Row]) -> None:
    axes.set(xscale="log", yscale="log", ylabel="loss at the end")
    labels = []
    rates = config.clipping_learning_rates
    shades = matplotlib.colormaps["cividis"](np.linspace(0.1, 0.8, len(rates)))
    for rate, color in zip(rates, shades, strict=True):
        own = select(rows, learning_rate=rate)
        heights = _outcomes(axes, _places(axes, own, "norm_bound"), own, {"color": color})
        labels.append((heights[-1], f"η = {rate:g}", {"color": color}))
    axes.set_ylim(top=2 * TOP)
    label_ends(axes, labels, gap=0.14)


def _bias(axes: Axes, config: Any, rows: Sequence[Row]) -> None:
    axes.set(xscale="log", xlabel="clip bound, on the norm or on each value")
    axes.set_ylabel("|mean − BPTT|\n÷ |BPTT|")
    fields = [f"relative_bias_{word}" for word in ("smallest", "median", "largest")]
    for kind, color in (("norm", COLOURS[3]), ("value", COLOURS[5])):
        own = [row for row in rows if clip_words(row)[0] in (kind, "none")]
        places = _places(axes, own, f"{kind}_bound")
        _band(axes, places, own, fields, color=color, label=f"by {kind}")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="lower left", labelcolor="linecolor")
    low, high = (rows[-1][f"relative_standard_error_{w}"] for w in ("smallest", "largest"))
    text = f"standard error\n{low:.2f} to {high:.2f}"
    label_ends(axes, [(rows[-1]["relative_bias_median"], text, {"color": "0.35"})])


def _places(axes: Axes, rows: Sequence[Row], field: str) -> np.ndarray:
    """The bounds, with ticks; no clipping stands right of the largest."""
    bounds = np.array([row[field] for row in rows])
    places = np.where(np.isfinite(bounds), bounds, 4 * bounds[np.isfinite(bounds)].max())
    axes.set_xticks(places, [*(f"{bound:g}" for bound in bounds[:-1]), "none"])
    axes.xaxis.set_tick_params(which="minor", bottom=False)
    return places
