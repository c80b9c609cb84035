"""The statistics of the gradient report: unbiased squared norms and jackknife intervals."""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp.diagnostics.interval import jackknife_error, student_t_quantile
from artbp.diagnostics.report import (
    GradientReport,
    LookBackNoise,
    TruncationBias,
    TruncationNoise,
)
from artbp.diagnostics.variance import TruncationVariance
from artbp.estimators.unbiased_tbptt import default_stored_windows
from artbp.truncation.base import TruncationLaw
from artbp.truncation.geometric import Geometric, geometric
from artbp.truncation.look_back import look_back_variance, look_back_work, optimal_look_back
from artbp.truncation.polynomial import Polynomial, polynomial
from artbp.truncation.replay import Replay

# The laws of look-backs that are reported, beside the optimal one at the work of the last.
LOOK_BACK_LAWS = (geometric(4 / 3), geometric(2), polynomial(1.5, 4))


class GradientSums:
    """Sums gradients over groups of consecutive windows, `[groups, patterns, P]`."""

    def __init__(self, num_groups: int, num_windows: int):
        self.group_of = np.arange(num_windows) * num_groups // num_windows
        self.counts = np.bincount(self.group_of)
        self.squares = np.zeros(num_groups)  # of ‖g‖²
        self.gradients: jax.Array | None = None

    def add(self, window: int, gradients: jax.Array) -> None:
        """Adds the gradients of one window, `[patterns, P]`; pattern 0 has no cuts."""
        if self.gradients is None:
            self.gradients = jnp.zeros((len(self.counts), *gradients.shape), gradients.dtype)
        group = self.group_of[window]
        self.gradients = _add_to_group(self.gradients, np.int32(group), gradients)
        self.squares[group] += float(jnp.sum(gradients[0] ** 2))

    def products(self) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        """Returns inner products of groups, float64 `[a, b]`: ⟨g, g⟩, and (⟨d, d⟩, ⟨d, g⟩) for the
        difference d = ĝ − g of each other pattern."""
        assert self.gradients is not None
        whole, pairs = np.asarray(self.gradients[:, 0], np.float64), []
        for pattern in range(1, self.gradients.shape[1]):
            difference = np.asarray(self.gradients[:, pattern], np.float64) - whole
            pairs.append((difference @ difference.T, difference @ whole.T))
        return whole @ whole.T, pairs


class Jackknife:
    """Estimates with one group of windows left out at a time, and intervals from their spread.

    Every estimate is an array `[groups + 1]`: entry c leaves group c out, the last uses all groups.
    """

    def __init__(self, counts: np.ndarray, confidence: float):
        self.counts, number = counts, len(counts)
        self.used = np.concatenate([1.0 - np.eye(number), np.ones((1, number))])
        self.quantile = student_t_quantile(confidence, number - 1)

    def squared_mean(self, products: np.ndarray) -> np.ndarray:
        """Computes ⟨E x, E y⟩ from products of different groups, which noise leaves unbiased."""
        pairs = np.stack([products, np.outer(self.counts, self.counts)])
        pairs *= 1 - np.eye(len(self.counts))
        total, number = np.einsum("ca,nab,cb->nc", self.used, pairs, self.used)
        return total / number

    def half_width(self, values: np.ndarray) -> float:
        """Computes the half-width of the interval around `values[-1]`."""
        return float(self.quantile * jackknife_error(values[:-1]))

    def ratio_interval(self, values: np.ndarray, other_error: float = 0.0) -> tuple[float, float]:
        """Computes an interval for a ratio by its logarithm, with a further relative error."""
        if not np.any(values):  # exactly zero, such as a law's noise in a cell without memory
            return 0.0, 0.0
        if not np.all((values > 0) & (values < np.inf)):
            return 0.0, float("inf")
        factor = float(np.exp(np.hypot(self.half_width(np.log(values)), other_error)))
        return float(values[-1]) / factor, float(values[-1]) * factor


@np.errstate(divide="ignore", invalid="ignore")  # data without noise: ratios are infinite
def summarise(
    sums: GradientSums,
    lengths: np.ndarray,
    laws: Sequence[TruncationLaw],
    traces: Sequence[Sequence[TruncationVariance]],
    profiles: Sequence[Sequence[np.ndarray]],
    window_length: int,
    confidence: float,
) -> GradientReport:
    """Makes the report of N windows.

    Args:
      sums: of all windows; after the pattern without cuts, one pattern for each K of `lengths`.
      traces: for each window in which they were measured, the trace of each law.
      profiles: for each of these windows and each K, Σ_n ‖R_{n,1}‖², Σ_n ‖R_{n,2}‖², …
      The others: as for `gradient_report`.

    Raises:
      ValueError: the squared norm of the mean gradient is estimated as zero or less, or is not
        finite.
    """
    jackknife = Jackknife(sums.counts, confidence)
    whole, pairs = sums.products()
    norm2 = jackknife.squared_mean(whole)
    if not np.isfinite(norm2[-1]):
        raise ValueError(
            "The gradient of these windows is NaN or infinite, so nothing can be seen here. Check "
            "the params and the data. With a shorter window_length, check whether it explodes."
        )
    if norm2[-1] <= 0:
        raise ValueError(
            "The mean gradient of these windows does not differ from zero, and errors are relative "
            "to it. Give a longer stream, or params farther from an optimum."
        )
    mean_square = (jackknife.used @ sums.squares) / (jackknife.used @ sums.counts)
    data = np.maximum(mean_square - norm2, 0.0)
    data_low, data_high = np.sqrt(jackknife.ratio_interval(data / norm2))
    biases = [
        _bias(jackknife, int(length), norm2, data, *map(jackknife.squared_mean, pair))
        for length, pair in zip(lengths, pairs, strict=True)
    ]
    noises = [
        _noise(jackknife, law, norm2, data, [trace[i] for trace in traces], confidence)
        for i, law in enumerate(laws)
    ]
    look_backs = []
    for i, length in enumerate(lengths.tolist()):
        own, num_complete = [found[i] for found in profiles], window_length // length
        look_backs += _look_backs(jackknife, length, norm2, data, own, num_complete, confidence)
    return GradientReport(
        window_length=window_length,
        num_windows=int(sums.counts.sum()),
        gradient_norm=float(np.sqrt(norm2[-1])),
        data_noise=float(np.sqrt(data[-1] / norm2[-1])),
        data_noise_interval=(float(data_low), float(data_high)),
        biases=biases,
        noises=noises,
        confidence=confidence,
        look_backs=look_backs,
    )


def _bias(
    jackknife: Jackknife, length: int, norm2: Any, data: Any, bias2: Any, product: Any
) -> TruncationBias:
    """Makes the entry of TBPTT(K) from ‖E g‖², the variance of the data, ‖E d‖² and ⟨E d, E g⟩."""
    square, projection = bias2 / norm2, product / norm2
    width = jackknife.half_width(square)  # the square is not negative, though its estimate may be
    low, high = np.sqrt(np.maximum(square[-1] + np.array([-width, width]), 0.0))
    length2 = norm2[-1] + 2 * product[-1] + bias2[-1]  # ‖E ĝ‖²
    windows = jackknife.ratio_interval(data / bias2)
    bias = TruncationBias(
        truncation_length=length,
        relative_bias=float(max(square[-1], 0.0) ** 0.5),
        interval=(float(low), float(high)),
        projection=float(projection[-1]),
        projection_half_width=jackknife.half_width(projection),
        cosine=float((norm2[-1] + product[-1]) / np.sqrt(norm2[-1] * max(length2, 1e-300))),
        windows_to_matter=float(data[-1] / bias2[-1]) if bias2[-1] > 0 else float("inf"),
        windows_interval=windows,
    )
    return bias if bias.is_significant else bias._replace(windows_interval=(windows[0], np.inf))


def _noise(
    jackknife: Jackknife, law: TruncationLaw, norm2: Any, data: Any, traces: Any, confidence: float
) -> TruncationNoise:
    """Makes the entry of a law from its traces, one for each window that was sampled."""
    samples, half_width = [trace.trace for trace in traces], traces[0].half_width
    mean_length, mean_memory = _moments(law)
    sizes = _sizes(jackknife, norm2, data, samples, half_width, confidence)
    return TruncationNoise(law=law, mean_length=mean_length, mean_memory=mean_memory, **sizes)


def _look_backs(
    jackknife: Jackknife,
    length: int,
    norm2: Any,
    data: Any,
    profiles: Any,
    num_complete: int,
    confidence: float,
) -> list[LookBackNoise]:
    """Makes the entries of unbiased TBPTT(K) from its profiles, one for each sampled window.

    num_complete: the first entries of a profile, to which all losses of the window contribute.
    """
    profiles = np.array(profiles)
    laws: list[TruncationLaw] = [*LOOK_BACK_LAWS]
    # Too short a profile, or one of zeros, as of a cell without memory, has no optimal law.
    with contextlib.suppress(ValueError):
        mean, work = profiles.mean(axis=0)[:num_complete], look_back_work(LOOK_BACK_LAWS[-1])
        laws.append(optimal_look_back(mean, extra_work=work))
    rows = []
    for law in laws:
        samples = [look_back_variance(law, profile) for profile in profiles]
        sizes = _sizes(jackknife, norm2, data, samples, np.inf, confidence)
        memory = (default_stored_windows(law) + 2) * length
        work = look_back_work(law)
        rows.append(LookBackNoise(length, law, extra_work=work, memory=memory, **sizes))
    return rows


def _sizes(
    jackknife: Jackknife, norm2: Any, data: Any, samples: Any, half_width: float, confidence: float
) -> dict[str, Any]:
    """Relative noise and variance, from the variance in each window that was sampled.

    half_width: of the interval of the mean if only one window was sampled.
    """
    mean = np.mean(samples)
    if len(samples) > 1:
        error = np.std(samples, ddof=1) / np.sqrt(len(samples))
        half_width = student_t_quantile(confidence, len(samples) - 1) * error
    low, high = np.sqrt(jackknife.ratio_interval(mean / norm2, half_width / mean))
    return {
        "relative_noise": float(np.sqrt(mean / norm2[-1])),
        "interval": (float(low), float(high)),
        "variance_to_data": float(mean / data[-1]),
        "variance_interval": jackknife.ratio_interval(mean / data, half_width / mean),
    }


def _moments(law: TruncationLaw, num_ages: int = 2**20) -> tuple[float, float]:
    """Computes (E[L], E[L²]/E[L]); the second is infinite where its sum does not converge."""
    if isinstance(law, Geometric):
        return law.mean_length, 2 * law.mean_length - 1
    if isinstance(law, Polynomial):
        spread = (law.alpha - 2) / (law.alpha - 3) if law.alpha > 3 else float("inf")
        return law.mean_length, 1 + 2 * (law.mean_length - 1) * spread
    if isinstance(law, Replay):
        lengths = np.asarray(law.lengths, np.float64)
        return float(lengths.mean()), float(np.square(lengths).mean() / lengths.mean())
    ages = np.arange(num_ages)
    survival = law.survival(ages)
    if survival[-1] > 0 and np.all(np.asarray(law.hazard(ages[-1:])) == 0):
        return float("inf"), float("inf")  # segments that never end
    mean = float(survival.sum())
    second = np.cumsum((2 * ages + 1) * survival)
    converges = second[-1] - second[num_ages // 2] < 0.01 * second[-1]
    return mean, float(second[-1] / mean) if converges else float("inf")


_add_to_group = jax.jit(lambda sums, group, new: sums.at[group].add(new), donate_argnums=0)
