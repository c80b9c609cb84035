"""What a gradient report holds, and what it says in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from artbp.truncation.base import TruncationLaw


class TruncationBias(NamedTuple):
    """The bias of TBPTT(K), cuts every K steps at an offset drawn for each window; floats.

    Attributes:
      truncation_length: K, also its memory and update delay, in time steps.
      relative_bias: ‖E ĝ − E g‖ / ‖E g‖. 0 where the estimate of its square is negative, as half
        of those of no bias are.
      interval: of relative_bias, (low, high).
      projection: ⟨E ĝ − E g, E g⟩ / ‖E g‖²: −1 where nothing is left along the gradient, below −1
        where the sign is wrong.
      projection_half_width: of its interval.
      cosine: between E ĝ and E g.
      bias_to_noise: bias ÷ standard deviation of one window's gradient.
      windows_to_matter: 1/bias_to_noise²: averaged over so many windows, the noise is as large as
        the bias.
      windows_interval: of windows_to_matter, (low, high); high is infinite where no bias is seen.
    """

    truncation_length: int
    relative_bias: float
    interval: tuple[float, float]
    projection: float
    projection_half_width: float
    cosine: float
    bias_to_noise: float
    windows_to_matter: float
    windows_interval: tuple[float, float]

    @property
    def is_seen(self) -> bool:
        """Whether zero is outside one of the intervals; for a small bias that of its projection."""
        return self.interval[0] > 0 or abs(self.projection) > self.projection_half_width


class TruncationNoise(NamedTuple):
    """The noise that a law's random boundaries add to ARTBP's gradient of one window; floats.

    Attributes:
      law: the truncation law.
      relative_noise: √(trace of the covariance) / ‖E g‖.
      interval: of relative_noise, (low, high).
      variance_to_data: trace ÷ that of the data, per window.
      variance_interval: of variance_to_data, (low, high).
      mean_length: E[L], the update delay on average, in time steps.
      mean_memory: E[L²]/E[L], the mean length of the segment that a random step is in: what memory
        has to hold and a gradient to wait for, as a step sees it. Infinite for α ≤ 3.
    """

    law: TruncationLaw
    relative_noise: float
    interval: tuple[float, float]
    variance_to_data: float
    variance_interval: tuple[float, float]
    mean_length: float
    mean_memory: float


class GradientReport(NamedTuple):
    """What `gradient_report` measures; relative to the norm of the gradient of one window.

    Attributes:
      window_length, num_windows: W and N.
      gradient_norm: ‖E g‖, of the losses of one window, summed.
      data_noise: √(trace of the covariance of one window's gradient) / ‖E g‖.
      data_noise_interval: (low, high).
      biases: of TBPTT, for each truncation length.
      noises: of ARTBP, for each law.
      confidence: level of the intervals, each by itself.
    """

    window_length: int
    num_windows: int
    gradient_norm: float
    data_noise: float
    data_noise_interval: tuple[float, float]
    biases: list[TruncationBias]
    noises: list[TruncationNoise]
    confidence: float


def describe(report: GradientReport) -> str:
    """In a few sentences: what limits training on this model, and what truncation adds.

    ARTBP's are of the law with the least noise among those whose memory is no longer than the
    longest K, if there are any.
    """
    seen = [bias for bias in report.biases if bias.is_seen]
    law = _fair_law(report)
    parts = [
        _limits(report, law),
        f"The noise of the data is {report.data_noise:.3g} times the gradient of one window of "
        f"{report.window_length} steps.",
    ]
    if seen:
        longest = max(seen, key=lambda bias: bias.truncation_length)
        windows = longest.windows_to_matter
        average = (
            f"as much as the noise of an average over {windows:,.0f} windows"
            if windows >= 1.5
            else "as much as the noise of a single window, or more"
        )
        parts.append(
            f"TBPTT {longest.truncation_length} is biased by {_percent(longest.relative_bias)} of "
            f"the gradient, {average}."
        )
        wrong = [b.truncation_length for b in seen if b.projection + b.projection_half_width < -1]
        if wrong:
            parts.append(f"TBPTT {_numbers(wrong)} has the wrong sign.")
    elif report.biases:
        parts.append("No bias of TBPTT is seen at these lengths.")
    if law is not None and np.isfinite(law.variance_to_data):
        share = law.variance_to_data
        words = f"{share:,.0f} times" if share > 5 else f"{_percent(share)} to"
        parts.append(
            f"ARTBP with {law_name(law.law)} adds {words} the variance of the data, at a memory of "
            f"{law.mean_memory:.0f} steps."
        )
    return " ".join(parts)


def _fair_law(report: GradientReport) -> TruncationNoise | None:
    longest = max((bias.truncation_length for bias in report.biases), default=np.inf)
    fair = [one for one in report.noises if one.mean_memory <= longest]
    return min(fair or report.noises, key=lambda one: one.relative_noise, default=None)


def _limits(report: GradientReport, law: TruncationNoise | None) -> str:
    """Which is larger, for steps of one window: intervals that overlap are "both alike"."""
    data = "the noise of the data"
    low, high = report.data_noise_interval
    lengths: dict[str, list[int]] = {"the bias": [], "both alike": [], data: []}
    for bias in report.biases:
        is_more, is_less = bias.interval[0] > high, bias.interval[1] < low
        what = "the bias" if is_more else data if is_less else "both alike"
        lengths[what].append(bias.truncation_length)
    parts = []
    if report.biases:
        groups = [f"{what} at K = {_numbers(found)}" for what, found in lengths.items() if found]
        parts.append(f"with TBPTT {', '.join(groups)}")
    if law is not None:
        low, high = law.variance_interval
        what = "its own noise" if low > 1 else data if high < 1 else "its own noise and the data's"
        parts.append(f"with ARTBP, {law_name(law.law)}, {what}")
    return f"What limits steps of one window each: {'; '.join(parts) or data}."


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(str(value) for value in values)


def law_name(law: TruncationLaw) -> str:
    """In the words of the call that makes it, such as "polynomial(16, 4)"."""
    name = type(law).__name__.lower()
    if not dataclasses.is_dataclass(law):
        return name
    values = [getattr(law, field.name) for field in dataclasses.fields(law)]
    words = [f"{v:g}" if isinstance(v, (int, float)) else f"{np.size(v)} ages" for v in values]
    return f"{name}({', '.join(words)})"


def _percent(share: float) -> str:
    return f"{100 * share:,.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
