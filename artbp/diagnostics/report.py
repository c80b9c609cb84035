"""The gradient report: its contents, its description in words and its table."""

import dataclasses
import fractions
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from artbp.truncation.base import TruncationLaw
from artbp.truncation.geometric import Geometric
from artbp.truncation.tabulated import Tabulated

# The share of the variance of the data that `describe` lets an estimator add.
_ACCEPTABLE = 0.1

_HEADER = (
    "| estimator | update delay, steps | memory, steps | work | bias ÷ gradient "
    "| bias along the gradient | cosine | noise ÷ gradient | variance ÷ data variance "
    "| windows until noise = bias |"
)


class TruncationBias(NamedTuple):
    """The bias of TBPTT(K), which cuts every K steps, at a random offset in each window; floats.

    Attributes:
      truncation_length: K in time steps, which is also its memory and its update delay.
      relative_bias: ‖E ĝ − E g‖ / ‖E g‖. It is 0 if the estimate of its square is negative, which
        happens half of the time if there is no bias.
      interval: (low, high) of relative_bias.
      projection: ⟨E ĝ − E g, E g⟩ / ‖E g‖². At −1 nothing is left along the gradient; below −1 the
        sign is wrong.
      projection_half_width: the interval is projection ± this.
      cosine: between E ĝ and E g.
      windows_to_matter: (standard deviation of one window's gradient ÷ bias)². The noise of an
        average over this many windows equals the bias.
      windows_interval: (low, high) of windows_to_matter; high is ∞ unless the bias is significant.
    """

    truncation_length: int
    relative_bias: float
    interval: tuple[float, float]
    projection: float
    projection_half_width: float
    cosine: float
    windows_to_matter: float
    windows_interval: tuple[float, float]

    @property
    def is_significant(self) -> bool:
        """Whether the interval of the bias or of its projection excludes zero."""
        return self.interval[0] > 0 or abs(self.projection) > self.projection_half_width


class TruncationNoise(NamedTuple):
    """The noise that a law's random boundaries add to ARTBP's gradient of one window; floats.

    Attributes:
      law: the truncation law.
      relative_noise, interval: √(trace of the covariance) / ‖E g‖, and (low, high).
      variance_to_data, variance_interval: trace ÷ the variance of the data, and (low, high).
      mean_length: E[L], the mean update delay in time steps.
      mean_memory: E[L²]/E[L] in time steps, the mean length of the segment that contains a random
        step. It measures the memory and how long a gradient waits. Infinite for α ≤ 3.
    """

    law: TruncationLaw
    relative_noise: float
    interval: tuple[float, float]
    variance_to_data: float
    variance_interval: tuple[float, float]
    mean_length: float
    mean_memory: float


class LookBackNoise(NamedTuple):
    """The noise that random look-backs add to the gradient of `unbiased_tbptt`; floats.

    It is that of the summed gradients of one window of the report. Look-backs end at the beginning
    of the window before it.

    Attributes:
      truncation_length: K in time steps, which is also its update delay.
      law: of the look-backs, counted in windows of K steps.
      extra_work: W, the expected number of older windows of an estimate.
      memory: the steps whose residuals the default mode stores: those of `stored_windows` + 2
        windows. It also stores carries, which are not counted here.
      relative_noise, interval: √(variance over look-backs) / ‖E g‖, by the exact formula, and
        (low, high).
      variance_to_data, variance_interval: variance ÷ the variance of the data, and (low, high).
    """

    truncation_length: int
    law: TruncationLaw
    extra_work: float
    memory: int
    relative_noise: float
    interval: tuple[float, float]
    variance_to_data: float
    variance_interval: tuple[float, float]

    @property
    def relative_work(self) -> float:
        """1 + 2/3·W, the matrix products relative to those of TBPTT(K)."""
        return 1 + 2 / 3 * self.extra_work


class GradientReport(NamedTuple):
    """The result of `gradient_report`, relative to the norm of the gradient of one window.

    Attributes:
      window_length, num_windows: W and N.
      gradient_norm: ‖E g‖, of the summed losses of one window.
      data_noise, data_noise_interval: √(trace of the covariance of g) / ‖E g‖, and (low, high).
      biases, noises: of TBPTT for each truncation length, and of ARTBP for each law.
      confidence: level of each single interval.
      is_blind: whether no gradient enters the carry at these params, though the carry has an effect
        on later carries, as with a readout of zeros. All biases and noises of truncation are then
        measured as 0, which says nothing about other params.
      look_backs: of unbiased TBPTT, for each truncation length and four laws: geometric with
        c = 3/4 and c = 1/2, polynomial(1.5, 4), and the law that is optimal for this model and K at
        the work of polynomial(1.5, 4). The optimal law is left out where the measured profile is
        too short for it or does not fall.
    """

    window_length: int
    num_windows: int
    gradient_norm: float
    data_noise: float
    data_noise_interval: tuple[float, float]
    biases: list[TruncationBias]
    noises: list[TruncationNoise]
    confidence: float
    look_backs: Sequence[LookBackNoise] = ()
    is_blind: bool = False


# What a blind report says.
_NOTHING_SEEN = (
    "Nothing can be seen here: at these params no gradient enters the carry, as with a readout of "
    "zeros, so that no truncation changes the gradient. Measure at params after some training."
)


def describe(report: GradientReport) -> str:
    """Describes in a few sentences which error dominates, and what truncation adds.

    If the bias of the longest K is significant, the first sentence says at what price
    `unbiased_tbptt` removes it. The law is the cheapest of those that add at most a tenth to the
    variance of the data or, if there are none, the one of least variance.

    For ARTBP it describes the law of least noise among those with at most the memory of the longest
    K, or among all laws if there are none.

    A report that is blind (`GradientReport.is_blind`) says so, and nothing else.
    """
    if report.is_blind:
        return _NOTHING_SEEN
    unknown = [bias for bias in report.biases if math.isnan(bias.relative_bias)]
    report = report._replace(
        biases=[bias for bias in report.biases if not math.isnan(bias.relative_bias)],
        noises=[noise for noise in report.noises if not math.isnan(noise.relative_noise)],
    )
    significant = [bias for bias in report.biases if bias.is_significant]
    longest_length = max((bias.truncation_length for bias in report.biases), default=np.inf)
    fair = [noise for noise in report.noises if noise.mean_memory <= longest_length]
    law = min(fair or report.noises, key=lambda noise: noise.relative_noise, default=None)
    sentences = [
        *_recommendation(report),
        _dominance(report, law),
        f"Data noise is {report.data_noise:.3g} times the gradient of one window of "
        f"{report.window_length} steps.",
    ]
    if significant:
        longest = max(significant, key=lambda bias: bias.truncation_length)
        windows, share = longest.windows_to_matter, _percent(longest.relative_bias)
        noise = "at least the noise of a single window"
        if windows >= 1.5:
            noise = f"as much as the noise of an average over {windows:,.0f} windows"
        biased = f"TBPTT {longest.truncation_length} is biased by {share} of the gradient"
        sentences.append(f"{biased}, {noise}.")
        wrong = [b for b in significant if b.projection + b.projection_half_width < -1]
        if wrong:
            sentences.append(f"TBPTT {_lengths(wrong)} has the wrong sign.")
    elif report.biases:
        sentences.append("No bias of TBPTT is significant at these lengths.")
    if unknown:
        sentences.append(f"Nothing can be seen of TBPTT {_lengths(unknown)}: its bias is NaN.")
    if law is not None and np.isfinite(law.variance_to_data):
        share, memory = law.variance_to_data, f"a memory of {law.mean_memory:.0f} steps"
        added = f"{share:,.0f} times" if share > 5 else f"{_percent(share)} to"
        words = f"adds {added} the variance of the data, at {memory}."
        sentences.append(f"ARTBP with {law_name(law.law)} {words}")
    return " ".join(sentences)


def _dominance(report: GradientReport, law: TruncationNoise | None) -> str:
    """Compares each error with data noise; errors whose intervals overlap are similar."""
    low, high = report.data_noise_interval
    groups: dict[str, list[TruncationBias]] = {
        "TBPTT's bias dominates data noise": [],
        "TBPTT's bias and data noise are similar": [],
        "data noise dominates TBPTT's bias": [],
    }
    dominates, similar, is_dominated = groups.values()
    for bias in report.biases:
        is_larger, is_smaller = bias.interval[0] > high, bias.interval[1] < low
        (dominates if is_larger else is_dominated if is_smaller else similar).append(bias)
    parts = [f"{words} at K = {_lengths(biases)}" for words, biases in groups.items() if biases]
    if law is not None:
        low, high = law.variance_interval
        words = "ARTBP's noise and data noise are similar"
        if low > 1 or high < 1:
            pair = ("ARTBP's noise", "data noise") if low > 1 else ("data noise", "ARTBP's noise")
            words = " dominates ".join(pair)
        parts.append(f"{words} with {law_name(law.law)}")
    return f"For updates of one window, {'; '.join(parts) or 'only data noise was measured'}."


def _recommendation(report: GradientReport) -> list[str]:
    """What it costs to remove the bias of the longest K, if this bias is significant."""
    longest = max(report.biases, key=lambda bias: bias.truncation_length, default=None)
    if longest is None or not longest.is_significant:
        return []
    rows = [row for row in report.look_backs if row.truncation_length == longest.truncation_length]
    cheap = [row for row in rows if row.variance_to_data <= _ACCEPTABLE]
    if cheap:
        best = min(cheap, key=lambda row: (row.extra_work, row.variance_to_data))
    else:
        best = min(rows, key=lambda row: row.variance_to_data, default=None)
    if best is None or not np.isfinite(best.variance_to_data):
        return []
    work, variance = best.relative_work - 1, best.variance_to_data
    added = f"{_percent(variance)} more variance"
    if variance > 5:
        added = f"{variance:,.0f} times the variance of the data on top"
    price = f"{_percent(work)} more work, {added}"
    name = f"unbiased TBPTT {best.truncation_length}, {look_back_name(best)}"
    return [f"To remove the bias of TBPTT, take {name}: {price}."]


def _lengths(biases: Sequence[TruncationBias]) -> str:
    return ", ".join(str(bias.truncation_length) for bias in biases)


def look_back_name(row: LookBackNoise) -> str:
    """Names the law of a row, such as "c = 3/4" for geometric(4/3)."""
    if isinstance(row.law, Geometric):
        return f"c = {fractions.Fraction(1 / row.law.mean_length).limit_denominator(100)}"
    if isinstance(row.law, Tabulated):
        return f"optimal law at W = {row.extra_work:.2g}"
    return law_name(row.law)


def report_table(report: GradientReport) -> str:
    """Formats the report as Markdown: one row per estimator, intervals in brackets.

    The update delay is the mean number of steps from one update to the next. The memory is K for
    TBPTT, the window for BPTT, E[L²]/E[L] for ARTBP, and `LookBackNoise.memory` for unbiased TBPTT.
    "Work" is in matrix products, relative to TBPTT. Bias and noise are relative to the gradient of
    one window. BPTT's noise is data noise; for ARTBP and unbiased TBPTT it is what their draws add.
    The other columns are fields of `TruncationBias`, `TruncationNoise` and `LookBackNoise`. A
    sentence below the table says so if the report is blind.
    """
    window = f"{report.window_length}"
    noise = _with_interval(report.data_noise, report.data_noise_interval)
    rows: list[tuple[str, ...]] = [
        ("BPTT through the window", window, window, "1", "0", "0", "1", noise, "1", "")
    ]
    for bias in report.biases:
        length = f"{bias.truncation_length}"
        relative = _with_interval(bias.relative_bias, bias.interval)
        along = f"{bias.projection:+.3f} ± {bias.projection_half_width:.3f}"
        windows = _with_interval(bias.windows_to_matter, bias.windows_interval)
        shown = (relative, along, f"{bias.cosine:.3f}", "", "", windows)
        rows.append((f"TBPTT {length}", length, length, "1", *shown))
    for law in report.noises:
        name, delay = f"ARTBP, {law_name(law.law)}", f"{law.mean_length:.3g}"
        rows.append((name, delay, _number(law.mean_memory), "1", *_noise_cells(law)))
    for row in report.look_backs:
        delay, work = f"{row.truncation_length}", f"{row.relative_work:.3g}"
        name = f"unbiased TBPTT {delay}, {look_back_name(row)}"
        rows.append((name, delay, f"{row.memory}", work, *_noise_cells(row)))
    lines = [_HEADER, "|" + 10 * " --- |", *(f"| {' | '.join(row)} |" for row in rows)]
    if report.is_blind:
        lines += ["", _NOTHING_SEEN]
    return "\n".join(lines)


def _noise_cells(row: TruncationNoise | LookBackNoise) -> tuple[str, ...]:
    """The cells of an unbiased estimator from "bias" on."""
    noise = f"+ {_with_interval(row.relative_noise, row.interval)}"
    variance = f"+ {_with_interval(row.variance_to_data, row.variance_interval)}"
    return "0", "0", "1", noise, variance, ""


def law_name(law: TruncationLaw) -> str:
    """Names a law by the call that makes it, such as "polynomial(16, 4)"."""
    name = type(law).__name__.lower()
    if not dataclasses.is_dataclass(law):
        return name
    values = [getattr(law, field.name) for field in dataclasses.fields(law)]
    return f"{name}({', '.join(_law_word(law, value) for value in values if value is not None)})"


def _law_word(law: TruncationLaw, value: object) -> str:
    """An argument of a law; of arrays the number of entries."""
    if isinstance(value, TruncationLaw):
        return law_name(value)
    if isinstance(value, (int, float)):
        return f"{value:g}"
    return f"{np.size(np.asarray(value))} {'ages' if isinstance(law, Tabulated) else 'lengths'}"


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{_number(value)} [{_number(interval[0])}, {_number(interval[1])}]"


def _number(value: float) -> str:
    if math.isinf(value):
        return "∞"
    return f"{value:,.0f}" if 100 <= value < 1e6 else f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:,.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
