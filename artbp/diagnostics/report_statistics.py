"""From the gradients of windows to a report: means without bias, intervals by the jackknife."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from artbp.diagnostics.interval import student_t_quantile
from artbp.diagnostics.report import GradientReport, TruncationBias, TruncationNoise
from artbp.diagnostics.variance import TruncationVariance
from artbp.truncation.base import TruncationLaw


class GradientSums:
    """Sums of gradients over runs of windows, `[groups, patterns, P]`, and of squared norms."""

    def __init__(self, num_groups: int, num_windows: int):
        self.group_of = np.arange(num_windows) * num_groups // num_windows
        self.counts = np.bincount(self.group_of)
        self.squares = np.zeros(num_groups)
        self.gradients: jax.Array | None = None

    def add(self, window: int, gradients: jax.Array) -> None:
        """Adds the gradients of one window, `[patterns, P]`; pattern 0 is that without cuts."""
        if self.gradients is None:
            self.gradients = jnp.zeros((len(self.counts), *gradients.shape), gradients.dtype)
        group = self.group_of[window]
        self.gradients = _add_to_group(self.gradients, np.int32(group), gradients)
        self.squares[group] += float(jnp.sum(gradients[0] ** 2))

    def products(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inner products of groups a and b: of g and g, `[a, b]`, and for every other pattern of
        its difference d = ĝ − g with itself and with g, `[patterns − 1, a, b]`; float64."""
        assert self.gradients is not None
        whole = np.asarray(self.gradients[:, 0], np.float64)
        of_itself, with_whole = [], []
        for pattern in range(1, self.gradients.shape[1]):
            difference = np.asarray(self.gradients[:, pattern], np.float64) - whole
            of_itself.append(difference @ difference.T)
            with_whole.append(difference @ whole.T)
        shape = (-1, len(whole), len(whole))
        return (
            whole @ whole.T,
            np.reshape(of_itself, shape),
            np.reshape(with_whole, shape),
        )


@np.errstate(divide="ignore", invalid="ignore")  # data without noise: ratios are infinite
def summarise(
    sums: GradientSums,
    lengths: np.ndarray,
    laws: Sequence[TruncationLaw],
    traces: Sequence[Sequence[TruncationVariance]],
    window_length: int,
    confidence: float,
) -> GradientReport:
    """The report of N windows.

    Squared norms of means come from products of different groups of windows, ⟨ḡ_a, ḡ_b⟩ for a ≠ b,
    which noise leaves unbiased; intervals from leaving out one group at a time.

    Args:
      sums: of all windows; their patterns are those of `lengths`, after the one without cuts.
      lengths: K's of TBPTT.
      laws: of ARTBP.
      traces: for each window that they were measured in, those of the laws.
      window_length, confidence: as for `gradient_report`.

    Raises:
      ValueError: the squared norm of the mean gradient is estimated as zero or less.
    """
    counts, number = sums.counts, len(sums.counts)
    # Row c: without group c; the last row: all groups.
    kept = np.concatenate([1.0 - np.eye(number), np.ones((1, number))])
    quantile = student_t_quantile(confidence, number - 1)

    def cross(products: np.ndarray) -> np.ndarray:
        """⟨mean of one part, mean of another⟩ for each row of `kept`."""
        between = products * (1 - np.eye(number))
        pairs = np.outer(counts, counts) * (1 - np.eye(number))
        return np.einsum("ca,ab,cb->c", kept, between, kept) / np.einsum(
            "ca,ab,cb->c", kept, pairs, kept
        )

    def half_width(values: np.ndarray) -> float:
        left_out = values[:-1]
        spread = np.sum((left_out - left_out.mean()) ** 2)
        return float(quantile * np.sqrt((number - 1) / number * spread))

    def interval(values: np.ndarray) -> tuple[float, float]:
        """Of what cannot be negative, though its estimate can."""
        width = half_width(values)
        return max(float(values[-1] - width), 0.0), max(float(values[-1] + width), 0.0)

    def ratio_interval(values: np.ndarray, more: float = 0.0) -> tuple[float, float]:
        """Of a ratio of positive numbers, in its logarithm; `more`: the half-width of another,
        independent error, relative."""
        if not np.any(values):  # nothing, exactly: the noise of a law where nothing looks back
            return 0.0, 0.0
        if not np.all((values > 0) & (values < np.inf)):
            return 0.0, float("inf")
        factor = float(np.exp(np.hypot(half_width(np.log(values)), more)))
        return float(values[-1]) / factor, float(values[-1]) * factor

    whole, of_itself, with_whole = sums.products()
    norm2 = cross(whole)
    if norm2[-1] <= 0:
        raise ValueError(
            "The mean gradient cannot be told from zero on these windows, and nothing can be "
            "measured relative to it. Give a longer stream, or params farther from an optimum."
        )
    data = np.maximum((kept @ sums.squares) / (kept @ counts) - norm2, 0.0)
    biases = []
    for length, itself, along in zip(lengths, of_itself, with_whole, strict=True):
        bias2, dot = cross(itself), cross(along)
        relative2, projection = bias2 / norm2, dot / norm2
        low, high = np.sqrt(interval(relative2))
        relative = max(relative2[-1], 0.0) ** 0.5
        length2 = norm2[-1] + 2 * dot[-1] + bias2[-1]
        to_noise2 = bias2 / data
        windows = ratio_interval(data / bias2)
        bias = TruncationBias(
            truncation_length=int(length),
            relative_bias=float(relative),
            interval=(float(low), float(high)),
            projection=float(projection[-1]),
            projection_half_width=half_width(projection),
            cosine=float((norm2[-1] + dot[-1]) / np.sqrt(norm2[-1] * max(length2, 1e-300))),
            bias_to_noise=float(max(to_noise2[-1], 0.0) ** 0.5),
            windows_to_matter=float(1 / to_noise2[-1]) if to_noise2[-1] > 0 else float("inf"),
            windows_interval=windows,
        )
        if not bias.is_seen:
            bias = bias._replace(windows_interval=(windows[0], float("inf")))
        biases.append(bias)
    noises = []
    for i, law in enumerate(laws):
        samples = np.array([trace[i].trace for trace in traces])
        # Of one window: over the steps sampled in it.
        mean, width = samples.mean(), traces[0][i].half_width
        if len(samples) > 1:
            error = samples.std(ddof=1) / np.sqrt(len(samples))
            width = student_t_quantile(confidence, len(samples) - 1) * error
        low, high = np.sqrt(ratio_interval(mean / norm2, width / mean))
        mean_length, mean_memory = _moments(law)
        noises.append(
            TruncationNoise(
                law=law,
                relative_noise=float(np.sqrt(mean / norm2[-1])),
                interval=(float(low), float(high)),
                variance_to_data=float(mean / data[-1]),
                variance_interval=ratio_interval(mean / data, width / mean),
                mean_length=mean_length,
                mean_memory=mean_memory,
            )
        )
    data_low, data_high = np.sqrt(ratio_interval(data / norm2))
    return GradientReport(
        window_length=window_length,
        num_windows=int(counts.sum()),
        gradient_norm=float(np.sqrt(norm2[-1])),
        data_noise=float(np.sqrt(data[-1] / norm2[-1])),
        data_noise_interval=(float(data_low), float(data_high)),
        biases=biases,
        noises=noises,
        confidence=confidence,
    )


def _moments(law: TruncationLaw, num_ages: int = 2**20) -> tuple[float, float]:
    """(E[L], E[L²]/E[L]) from the survival, the second infinite where its sum does not settle."""
    ages = np.arange(num_ages)
    survival = law.survival(ages)
    mean = float(survival.sum())
    second = np.cumsum((2 * ages + 1) * survival)
    settled = second[-1] - second[num_ages // 2] < 0.01 * second[-1]
    return mean, float(second[-1] / mean) if settled else float("inf")


@partial(jax.jit, donate_argnums=0)
def _add_to_group(sums: jax.Array, group: jax.Array, gradients: jax.Array) -> jax.Array:
    return sums.at[group].add(gradients)
