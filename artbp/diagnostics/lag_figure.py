"""A lag profile as a figure, drawn on one of matplotlib's, which the library does not import."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from artbp.diagnostics.figure import label_beside
from artbp.diagnostics.lag_profile import LagProfile

# Okabe & Ito's: told apart by readers with any colour vision, on white and on black.
_STATE, _GRADIENT, _BOUND = "#0072B2", "#D55E00", "#009E73"
_NOTHING = "#BFBFBF"
# Less than this is off the axes: it would press together what a choice of K depends on.
_LOWEST = 1e-6


def plot_lag_profile(profile: LagProfile, figure: Any) -> Any:
    """Draws how gradients shrink with lag, and how their parts add up; returns the figure.

        left    ‖∂ℓ_t/∂s_{t−k}‖ ÷ that of k = 1,   γ_k ÷ E(0) with its fit,   E(K) ÷ E(0)
        right   cosines Γ_mm' / √(Γ_mm Γ_m'm')

    Read K off the bound: a look-back of K steps loses at most the share E(K)/E(0) of
    E(0) = Σ_{k≥1} γ_k, the sizes of all that comes through the carry. That is no bias relative to
    the gradient: where parts cancel, the gradient is smaller than E(0). L0 is to be compared with
    the time constant. Where nothing decays E is infinite and not drawn, and γ_k is divided by the
    first of them. What is zero or not finite is left out.

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
    whole = _first([np.sum(norms) + bounds[-1]] if bounded else norms)
    by_whole = "E(0)" if bounded else "the first"
    curves = [
        (profile.loss_norms / _first(profile.loss_norms), _STATE, "‖∂ℓₜ/∂sₜ₋ₖ‖, ÷\nthat of k = 1"),
        (norms / whole, _GRADIENT, f"γₖ, gradient through\nstep t−k, ÷ {by_whole}"),
    ]
    if bounded:
        curves.append((bounds / whole, _BOUND, "E(K) ÷ E(0), at most\nlost looking back k"))
    thin = axes.xaxis.label.get_color()  # that of text, in a dark style too
    curves.append((_fit(profile) / whole, thin, f"fit of γₖ, {_decay(profile)}"))
    # What is zero has no place on a logarithmic axis, and what overflowed has none anywhere.
    seen = [np.where((v > 0) & np.isfinite(v), v, np.nan) for v, *_ in curves]
    for values, (_, colour, _) in zip(seen, curves, strict=True):
        style = {"linewidth": 2, "marker": ".", "markersize": 5}
        if colour == thin:
            style = {"linewidth": 0.8, "zorder": 3}
        axes.plot(lags, values, color=colour, **style)

    axes.set(yscale="log", xlabel="lag k (time steps)", ylabel="relative size")
    shown = np.where(np.array(seen) >= _LOWEST, seen, np.nan)
    if np.all(np.isnan(shown)):
        axes.set(xlim=(lags[0], lags[-1]), yticks=[])
        axes.text(0.5, 0.5, "Nothing comes through the carry.", transform=axes.transAxes)
    else:
        # Where all has left the axes below, they end: the labels stand beside the lines.
        last = int(np.flatnonzero(np.any(shown > 0, axis=0))[-1])
        axes.set_xlim(lags[0] - 0.3, lags[last] + 0.3)
        axes.set_ylim(0.7 * np.nanmin(shown), 1.4 * np.nanmax(shown))
        _label(axes, [(v[last], *words) for v, *words in curves if np.any(v > 0)])
    axes.set_title(_dynamics(profile), fontsize=10.5, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _label(axes: Any, ends: Sequence[tuple[Any, ...]]) -> None:
    """Beside the ends of lines, (height, colour, text), without lying on one another."""
    low, high = axes.get_ylim()
    heights = np.clip(np.nan_to_num([end[0] for end in ends], nan=high), low, high)
    places = np.log(heights / low) / np.log(high / low)
    label_beside(
        axes, [(at, text, c) for at, (_, c, text) in zip(places, ends, strict=True)], gap=0.1
    )


def _draw_cosines(profile: LagProfile, axes: Any, figure: Any) -> None:
    sizes = np.sqrt(np.diagonal(profile.gram))
    scale = np.outer(sizes, sizes)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = np.where(scale > 0, profile.gram / scale, np.nan)
    # Blue to red through white: of even lightness steps both ways, the same to every colour vision.
    image = axes.imshow(
        np.ma.masked_invalid(cosines), cmap="RdBu_r", vmin=-1, vmax=1, origin="lower"
    )
    axes.set_facecolor(_NOTHING)  # where a part is zero and has no direction
    axes.set(xlabel="m (time steps behind the cut)", ylabel="m′ (time steps behind the cut)")
    axes.set_title("Do the parts of the gradient add up?", fontsize=10.5, loc="left")
    bar = figure.colorbar(image, ax=axes, shrink=0.85, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.set_label("cosine of Gₘ and Gₘ′:  1 they add up, −1 they cancel")
    bar.outline.set_visible(False)


def _first(values: Iterable[float]) -> float:
    """The first that is not zero; 1 where all are."""
    return float(next((value for value in values if value > 0), 1.0))


def _fit(profile: LagProfile) -> np.ndarray:
    """The least-squares line of `decay_rate`, at its lags; zero before them, and without a fit."""
    lags, norms = profile.lags, profile.gradient_norms
    fitted = lags >= profile.fitted_from
    used = fitted & (norms > 0)
    if not profile.decay_rate > 0 or not np.all(np.isfinite(norms)):
        return np.zeros(len(lags))
    slope = np.log(profile.decay_rate)
    level = np.mean(np.log(norms[used]) - slope * lags[used])
    return np.where(fitted, np.exp(level + slope * lags), 0.0)


def _decay(profile: LagProfile) -> str:
    if np.isinf(profile.time_constant):
        return f"× {profile.decay_rate:.3g}\nper step: E(K) = ∞"
    return f"time\nconstant {profile.time_constant:.3g} steps"


def _dynamics(profile: LagProfile) -> str:
    """One sentence on how perturbations of the carry grow."""
    growth, reach = profile.growth_rate, len(profile.lags)
    exponent = f"exponent {growth:+.2g} per step".replace("-", "−")
    if profile.dynamics == "long memory":
        return (
            f"Long memory: over {reach} steps a perturbation of the carry\n"
            f"changes by less than a factor e ({exponent})."
        )
    if np.isneginf(growth):
        return "Vanishing: no perturbation of the carry outlives a step."
    verb = "grows" if profile.dynamics == "exploding" else "shrinks"
    return (
        f"{profile.dynamics.capitalize()}: a perturbation of the carry {verb} e-fold\n"
        f"in {1 / abs(growth):.2g} steps ({exponent})."
    )
