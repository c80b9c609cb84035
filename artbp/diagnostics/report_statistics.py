"""The statistics of the gradient report: unbiased squared norms and jackknife intervals."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp.diagnostics.interval import jackknife_error, student_t_quantile
from artbp.diagnostics.report import GradientReport, TruncationBias, TruncationNoise
from artbp.diagnostics.variance import TruncationVariance
from artbp.truncation.base import TruncationLaw


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
    window_length: int,
    confidence: float,
) -> GradientReport:
    """Makes the report of N windows.

    Args:
      sums: of all windows; after the pattern without cuts, one pattern for each K of `lengths`.
      traces: for each window in which they were measured, the trace of each law.
      The others: as for `gradient_report`.

    Raises:
      ValueError: the squared norm of the mean gradient is estimated as zero or less.
    """
    jackknife = Jackknife(sums.counts, confidence)
    whole, pairs = sums.products()
    norm2 = jackknife.squared_mean(whole)
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
    return GradientReport(
        window_length=window_length,
        num_windows=int(sums.counts.sum()),
        gradient_norm=float(np.sqrt(norm2[-1])),
        data_noise=float(np.sqrt(data[-1] / norm2[-1])),
        data_noise_interval=(float(data_low), float(data_high)),
        biases=biases,
        noises=noises,
        confidence=confidence,
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
    samples = np.array([trace.trace for trace in traces])
    mean, width = samples.mean(), traces[0].half_width
    if len(samples) > 1:
        error = samples.std(ddof=1) / np.sqrt(len(samples))
        width = student_t_quantile(confidence, len(samples) - 1) * error
    low, high = np.sqrt(jackknife.ratio_interval(mean / norm2, width / mean))
    mean_length, mean_memory = _moments(law)
    return TruncationNoise(
        law=law,
        relative_noise=float(np.sqrt(mean / norm2[-1])),
        interval=(float(low), float(high)),
        variance_to_data=float(mean / data[-1]),
        variance_interval=jackknife.ratio_interval(mean / data, width / mean),
        mean_length=mean_length,
        mean_memory=mean_memory,
    )


def _moments(law: TruncationLaw, num_ages: int = 2**20) -> tuple[float, float]:
    """Computes (E[L], E[L²]/E[L]); the second is infinite where its sum does not converge."""
    ages = np.arange(num_ages)
    survival = law.survival(ages)
    mean = float(survival.sum())
    second = np.cumsum((2 * ages + 1) * survival)
    converges = second[-1] - second[num_ages // 2] < 0.01 * second[-1]
    return mean, float(second[-1] / mean) if converges else float("inf")


_add_to_group = jax.jit(lambda sums, group, new: sums.at[group].add(new), donate_argnums=0)
