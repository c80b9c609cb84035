"""The gradient report as a figure, on axes of matplotlib, which the library does not import."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from artbp.diagnostics.report import GradientReport, TruncationNoise, describe, law_name

# Okabe & Ito's: told apart by readers with any colour vision, on white and on black.
_BIAS, _NOISE, _DATA = "#0072B2", "#D55E00", "#7F7F7F"
# Line and mark of a family of laws, and how a label draws them.
_STYLES = (("-", "D", "—◆—"), ("--", "s", "-■-"), (":", "^", "··▲··"), ("-.", "v", "-·▼·-"))
_MANY = 100


def plot_report(report: GradientReport, axes: Any) -> Any:
    """Draws bias of TBPTT, noise of ARTBP and noise of the data on one axis; returns the axes.

    Sizes are relative to the norm of the gradient of one window. What lies above the dashed line
    drowns a single window's gradient; what lies above the dotted line is still there when
    100 windows are averaged. Across: the memory that each needs on average; laws whose mean memory
    is infinite have no place. The title says what limits the model, in the words of `describe`.

    Args:
      report: from `gradient_report`.
      axes: matplotlib axes to draw on, such as `matplotlib.pyplot.figure().add_subplot()`.
    """
    labels: list[tuple[float, str, str]] = []  # what stands at the right edge, and where
    levels = [(report.data_noise, (0, (6, 3)), "noise of the data, one window")]
    levels += [(report.data_noise / np.sqrt(_MANY), (0, (1, 2)), f"mean of {_MANY} windows")]
    for level, dashes, text in levels:
        axes.axhline(level, color=_DATA, linestyle=dashes, linewidth=1.5)
        labels.append((level, text, _DATA))
    seen = [bias for bias in report.biases if bias.relative_bias > 0]
    if seen:
        x = [bias.truncation_length for bias in seen]
        y = np.array([bias.relative_bias for bias in seen])
        low, high = np.array([bias.interval for bias in seen]).T
        axes.errorbar(x, y, yerr=[y - low, high - y], color=_BIAS, marker="o", capsize=3)
        labels.append((y[-1], "bias of TBPTT", _BIAS))
    drawn = [noise for noise in report.noises if np.isfinite(noise.mean_memory)]
    families = _families(drawn).items()
    for (family, noises), style in zip(families, itertools.cycle(_STYLES), strict=False):
        dashes, mark, sample = style
        x = [noise.mean_memory for noise in noises]
        y = np.array([noise.relative_noise for noise in noises])
        low, high = np.array([noise.interval for noise in noises]).T
        axes.errorbar(
            x, y, yerr=[y - low, high - y], color=_NOISE, linestyle=dashes, marker=mark, capsize=3
        )
        labels.append((y[-1], f"{sample} noise of ARTBP, {family}", _NOISE))

    axes.set(
        xscale="log",
        yscale="log",
        xlabel="memory in time steps (of ARTBP: mean segment around a step)",
        ylabel=f"÷ gradient of {report.window_length} steps",
    )
    lengths = [bias.truncation_length for bias in report.biases]
    memories = [noise.mean_memory for noise in drawn]
    farthest = max([*lengths, *memories], default=1)
    beyond = max(lengths, default=min(memories, default=1))
    ticks = [*lengths, *(2**i for i in range(64) if 1.4 * beyond < 2**i <= 1.1 * farthest)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    # Lines and marks alone set the range: an interval that holds zero has no lower end here.
    heights = [label[0] for label in labels]
    heights += [bias.relative_bias for bias in seen]
    heights += [noise.relative_noise for noise in drawn]
    axes.set_ylim(0.6 * min(heights), 1.7 * max(heights))
    low, high = np.log(axes.get_ylim())
    places = [(np.log(height) - low) / (high - low) for height, *_ in labels]
    label_beside(axes, [(at, *words) for at, (_, *words) in zip(places, labels, strict=True)])
    axes.set_title("\n".join(textwrap.wrap(describe(report), 80)), fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def label_beside(axes: Any, labels: Sequence[tuple[Any, ...]], gap: float = 0.06) -> None:
    """Writes (place, text, colour) beside the right edge, moved up where they would touch.

    Places and gap are parts of the height of the axes.
    """
    places = [label[0] for label in labels]
    order = np.argsort(places)
    for below, above in itertools.pairwise(order):
        places[above] = max(places[above], places[below] + gap)
    for place, (_, text, colour) in zip(places, labels, strict=True):
        axes.text(
            1.02,
            place,
            text,
            color=colour,
            fontweight="bold",
            fontsize=9,
            va="center",
            transform=axes.transAxes,
        )


def _families(noises: Sequence[TruncationNoise]) -> dict[str, list[TruncationNoise]]:
    """Laws that differ in their mean length alone, by increasing mean length."""
    families: dict[str, list[TruncationNoise]] = {}
    for noise in sorted(noises, key=lambda noise: noise.mean_length):
        name, _, arguments = law_name(noise.law).partition("(")
        rest = arguments.rstrip(")").partition(", ")[2]
        families.setdefault(f"{name}, α = {rest}" if rest else name, []).append(noise)
    return families
