"""Figures of a gradient report and of a lag profile, drawn with the caller's matplotlib."""

import itertools
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from artbp.diagnostics.lag_profile import LagProfile
from artbp.diagnostics.report import (
    GradientReport,
    TruncationNoise,
    describe,
    law_name,
    look_back_name,
)

# Okabe and Ito's colours, which readers with any colour vision can tell apart.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#7F7F7F"
_PINK = "#CC79A7"
# Line and marker of a family of laws, and the same as text in a label.
_STYLES = (("-", "D", "—◆—"), ("--", "s", "-■-"), (":", "^", "··▲··"), ("-.", "v", "-·▼·-"))
# Smaller values are cut off; they would squeeze the range in which K is chosen.
_LOWEST = 1e-6


def plot_report(report: GradientReport, axes: Any) -> Any:
    """Draws bias, noise of unbiased estimators and data noise against memory; returns the axes.

    Sizes are relative to the norm of the gradient of one window. An error below the dashed line is
    smaller than the data noise of one window. An error above the dotted line is larger than the
    data noise of an average over 100 windows. Laws of infinite mean memory are omitted, and so is
    noise of unbiased TBPTT that is above everything else in the figure.

    Args:
      report: from `gradient_report`.
      axes: matplotlib axes to draw on, such as `matplotlib.pyplot.figure().add_subplot()`.
    """
    labels: list[tuple[float, str, str]] = []  # (height, colour, text) at the right edge
    for number, windows, dashes in ((1, "one window", (6, 3)), (100, "100 windows", (1, 2))):
        level = report.data_noise / np.sqrt(number)
        axes.axhline(level, color=_GREY, linestyle=(0, dashes), linewidth=1.5)
        labels.append((level, _GREY, f"data noise, {windows}"))

    def draw(points: Sequence[Any], x: Sequence[float], y: Any, style: dict[str, Any]) -> None:
        low, high = np.array([point.interval for point in points]).T
        axes.errorbar(x, y, yerr=[y - low, high - y], capsize=3, **style)

    biases = [bias for bias in report.biases if bias.relative_bias > 0]
    if biases:
        x, y = [b.truncation_length for b in biases], [b.relative_bias for b in biases]
        draw(biases, x, y, {"color": _BLUE, "marker": "o"})
        labels.append((y[-1], _BLUE, "bias of TBPTT"))
    noises = [noise for noise in report.noises if np.isfinite(noise.mean_memory)]
    styled = zip(_families(noises).items(), itertools.cycle(_STYLES), strict=False)
    for (family, members), (dashes, marker, sample) in styled:
        x, y = [n.mean_memory for n in members], [n.relative_noise for n in members]
        draw(members, x, y, {"color": _ORANGE, "linestyle": dashes, "marker": marker})
        labels.append((y[-1], _ORANGE, f"{sample} noise of ARTBP, {family}"))

    heights = [label[0] for label in labels]
    heights += [bias.relative_bias for bias in biases] + [n.relative_noise for n in noises]
    look_backs: dict[str, list[Any]] = {}
    for row in report.look_backs:
        own = look_backs.setdefault(look_back_name(row), [])  # also if it is not drawn: one style
        if 0 < row.relative_noise <= max(heights):
            own.append(row)
    styled = zip(look_backs.items(), itertools.cycle(_STYLES), strict=False)
    drawn = [(name, rows, style) for (name, rows), style in styled if rows]
    for name, rows, (dashes, marker, sample) in drawn:
        x, y = [row.memory for row in rows], [row.relative_noise for row in rows]
        draw(rows, x, y, {"color": _PINK, "linestyle": dashes, "marker": marker})
        labels.append((y[-1], _PINK, f"{sample} unbiased TBPTT, {name}"))
        heights += y

    axes.set(xscale="log", yscale="log", ylabel=f"÷ gradient of {report.window_length} steps")
    axes.set_xlabel(
        "memory in time steps\n"
        "(TBPTT: K; ARTBP: mean segment around a step; unbiased TBPTT: stored steps)",
        loc="left",
    )
    lengths = [bias.truncation_length for bias in report.biases]
    memories = [noise.mean_memory for noise in noises]
    memories += [row.memory for _, rows, _ in drawn for row in rows]
    farthest = max([*lengths, *memories], default=1)
    beyond = max(lengths, default=min(memories, default=1))
    ticks = [*lengths, *(2**i for i in range(64) if 1.4 * beyond < 2**i <= 1.1 * farthest)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    # Intervals do not set the range: on a logarithmic axis one that contains 0 has no lower end.
    axes.set_ylim(0.6 * min(heights), 1.7 * max(heights))
    _label_lines(axes, labels, gap=0.06)
    axes.set_title("\n".join(textwrap.wrap(describe(report), 80)), fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def plot_lag_profile(profile: LagProfile, figure: Any) -> Any:
    """Draws how gradients shrink with lag, and how their parts add up; returns the figure.

        left    ‖∂ℓ_t/∂s_{t−k}‖ ÷ its value at k = 1,   γ_k ÷ E(0) with its fit,   E(K) ÷ E(0)
        right   cosines Γ_mm' / √(Γ_mm Γ_m'm')

    Read K off the bound: a look-back of K steps loses at most the share E(K)/E(0) of
    E(0) = Σ_{k≥1} γ_k, the summed sizes of all parts of the gradient that flow through the carry.
    The bias relative to the gradient can be larger: where parts cancel, the gradient is smaller
    than E(0). Compare L0 with the time constant. Where nothing decays, E is infinite: it is not
    drawn, and γ_k is divided by its first value. Zeros and infinities are left out.

    Args:
      profile: from `lag_profile`.
      figure: an empty matplotlib figure to draw on, such as
        `matplotlib.pyplot.figure(figsize=(13, 5), layout="constrained")`.
    """
    decay, cosines = figure.subplots(1, 2, width_ratios=[1.35, 1])
    _draw_decay(profile, decay)
    _draw_cosines(profile, cosines, figure)
    return figure


def _draw_decay(profile: LagProfile, axes: Any) -> None:
    lags, norms, bounds = profile.lags, profile.gradient_norms, profile.bias_bounds
    bounded = bool(np.all(np.isfinite(bounds)))
    whole = _first_positive([np.sum(norms) + bounds[-1]] if bounded else norms)
    state = profile.loss_norms / _first_positive(profile.loss_norms)
    label = f"γₖ, gradient through\nstep t−k, ÷ {'E(0)' if bounded else 'the first'}"
    curves = [(state, _BLUE, "‖∂ℓₜ/∂sₜ₋ₖ‖, ÷\nthat of k = 1"), (norms / whole, _ORANGE, label)]
    if bounded:
        curves.append((bounds / whole, _GREEN, "E(K) ÷ E(0), at most\nlost looking back k"))
    text_colour = axes.xaxis.label.get_color()  # visible in dark styles too
    decay = f"time\nconstant {profile.time_constant:.3g} steps"
    if np.isinf(profile.time_constant):
        decay = f"× {profile.decay_rate:.3g}\nper step: E(K) = ∞"
    curves.append((_fit(profile) / whole, text_colour, f"fit of γₖ, {decay}"))
    # A logarithmic axis has no place for zeros, and no axis has one for overflows.
    drawn = [np.where((v > 0) & np.isfinite(v), v, np.nan) for v, *_ in curves]
    thick, thin = {"linewidth": 2, "marker": ".", "markersize": 5}, {"linewidth": 0.8, "zorder": 3}
    for values, (_, colour, _) in zip(drawn, curves, strict=True):
        axes.plot(lags, values, color=colour, **(thin if colour == text_colour else thick))

    axes.set(yscale="log", xlabel="lag k (time steps)", ylabel="relative size")
    visible = np.where(np.array(drawn) >= _LOWEST, drawn, np.nan)
    if np.all(np.isnan(visible)):
        axes.set(xlim=(lags[0], lags[-1]), yticks=[])
        axes.text(0.5, 0.5, "No gradient flows through the carry.", transform=axes.transAxes)
    else:
        # The axes end at the last lag with a visible value, so that labels are beside the lines.
        last = int(np.flatnonzero(np.any(visible > 0, axis=0))[-1])
        axes.set_xlim(lags[0] - 0.3, lags[last] + 0.3)
        axes.set_ylim(0.7 * np.nanmin(visible), 1.4 * np.nanmax(visible))
        _label_lines(axes, [(v[last], *label) for v, *label in curves if np.any(v > 0)], gap=0.1)
    axes.set_title(_dynamics_sentence(profile), fontsize=10.5, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_cosines(profile: LagProfile, axes: Any, figure: Any) -> None:
    sizes = np.sqrt(np.diagonal(profile.gram))
    scale = np.outer(sizes, sizes)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = np.ma.masked_where(~(scale > 0), profile.gram / scale)
    # Blue to red through white: equal steps of lightness on both sides, for any colour vision.
    image = axes.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1, origin="lower")
    axes.set_facecolor("#BFBFBF")  # where a part is zero and has no direction
    axes.set(xlabel="m (time steps behind the cut)", ylabel="m′ (time steps behind the cut)")
    axes.set_title("Do the parts of the gradient add up?", fontsize=10.5, loc="left")
    bar = figure.colorbar(image, ax=axes, shrink=0.85, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.set_label("cosine of Gₘ and Gₘ′:  1 they add up, −1 they cancel")
    bar.outline.set_visible(False)


def _label_lines(axes: Any, labels: Sequence[tuple[Any, ...]], gap: float) -> None:
    """Writes (height, colour, text) at the right edge of axes with a logarithmic height.

    Labels are moved up, and down from the top, to stay `gap` apart, as a share of the height of the
    axes.
    """
    low, high = axes.get_ylim()
    heights = np.clip(np.nan_to_num([label[0] for label in labels], nan=high), low, high)
    places = np.log(heights / low) / np.log(high / low)
    order = np.argsort(places)
    for below, above in itertools.pairwise(order):
        places[above] = max(places[above], places[below] + gap)
    places[order[-1]] = min(places[order[-1]], 1.0)
    for above, below in itertools.pairwise(order[::-1]):
        places[below] = min(places[below], places[above] - gap)
    style = {"fontweight": "bold", "fontsize": 9, "va": "center", "transform": axes.transAxes}
    for place, (_, colour, text) in zip(places, labels, strict=True):
        axes.text(1.02, place, text, color=colour, **style)


def _families(noises: Sequence[TruncationNoise]) -> dict[str, list[TruncationNoise]]:
    """Groups laws that differ only in their mean length, in order of increasing mean length."""
    families: dict[str, list[TruncationNoise]] = {}
    for noise in sorted(noises, key=lambda noise: noise.mean_length):
        name, _, arguments = law_name(noise.law).partition("(")
        rest = arguments.rstrip(")").partition(", ")[2]
        families.setdefault(f"{name}, α = {rest}" if rest else name, []).append(noise)
    return families


def _first_positive(values: Iterable[float]) -> float:
    """Returns the first positive value, or 1 if there is none."""
    return float(next((value for value in values if value > 0), 1.0))


def _fit(profile: LagProfile) -> np.ndarray:
    """Computes the line that `decay_rate` fits; zero before its first lag and without a fit."""
    lags, norms = profile.lags, profile.gradient_norms
    fitted = lags >= profile.fitted_from
    used = fitted & (norms > 0)
    if not profile.decay_rate > 0 or not np.all(np.isfinite(norms)):
        return np.zeros(len(lags))
    slope = np.log(profile.decay_rate)
    level = np.mean(np.log(norms[used]) - slope * lags[used])
    return np.where(fitted, np.exp(level + slope * lags), 0.0)


def _dynamics_sentence(profile: LagProfile) -> str:
    """Says how perturbations of the carry grow."""
    growth = profile.growth_rate
    if np.isneginf(growth):
        return "Vanishing: a perturbation of the carry is zero after one step."
    exponent = f"exponent {growth:+.2g} per step".replace("-", "−")
    subject = "a perturbation of the carry"
    if profile.dynamics == "long memory":
        subject = f"over {len(profile.lags)} steps {subject}"
        return f"Long memory: {subject}\nchanges by less than a factor e ({exponent})."
    change = f"{'grows' if growth > 0 else 'shrinks'} e-fold\nin {1 / abs(growth):.2g} steps"
    return f"{profile.dynamics.capitalize()}: {subject} {change} ({exponent})."
