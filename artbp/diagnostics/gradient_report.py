"""How biased is TBPTT, how noisy is ARTBP, how noisy are the data: on one model, in one unit.

The stream is read in windows of W steps, with the carry kept from one to the next. The gradient of
a window's losses through the window is what everything is compared with; its mean is the gradient,
and its spread from window to window the noise of the data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import flatten_util

from artbp import _tree
from artbp.diagnostics.interval import student_t_quantile
from artbp.diagnostics.variance import truncation_variance
from artbp.diagnostics.variance_reduction import gradients_of_gates
from artbp.stream import Stream
from artbp.truncation.base import TruncationLaw, check_law
from artbp.unrolls.checks import Cell, check_params, check_positive
from artbp.unrolls.readout import LossFn
from artbp.unrolls.unroll import unroll

# Windows next to each other share the text around their border: intervals come from leaving out
# one of so many runs of windows at a time.
_MOST_GROUPS = 16
_FEWEST_WINDOWS = 8


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
    """

    truncation_length: int
    relative_bias: float
    interval: tuple[float, float]
    projection: float
    projection_half_width: float
    cosine: float
    bias_to_noise: float
    windows_to_matter: float


class TruncationNoise(NamedTuple):
    """The noise that a law's random boundaries add to ARTBP's gradient of one window; floats.

    Attributes:
      law: the truncation law.
      relative_noise: √(trace of the covariance) / ‖E g‖.
      interval: of relative_noise, (low, high).
      variance_to_data: trace ÷ that of the data, per window.
      mean_length: E[L], the update delay on average, in time steps.
      mean_memory: E[L²]/E[L], the mean length of the segment that a random step is in: what memory
        has to hold and a gradient to wait for, as a step sees it. Infinite for α ≤ 3.
    """

    law: TruncationLaw
    relative_noise: float
    interval: tuple[float, float]
    variance_to_data: float
    mean_length: float
    mean_memory: float


class GradientReport(NamedTuple):
    """What `gradient_report` measures; relative to the norm of the gradient of one window.

    Attributes:
      window_length, num_windows: W and N.
      gradient_norm: ‖E g‖, of the losses of one window, summed.
      data_noise: √(trace of the covariance of one window's gradient) / ‖E g‖.
      biases: of TBPTT, for each truncation length.
      noises: of ARTBP, for each law.
      confidence: level of the intervals, each by itself.
    """

    window_length: int
    num_windows: int
    gradient_norm: float
    data_noise: float
    biases: list[TruncationBias]
    noises: list[TruncationNoise]
    confidence: float


def gradient_report(
    cell: Cell,
    loss_fn: LossFn,
    params: Any,
    carry: Any,
    stream: Stream,
    *,
    window_length: int,
    truncation_lengths: Sequence[int],
    laws: Sequence[TruncationLaw],
    rng_key: jax.Array,
    num_variance_windows: int = 8,
    num_samples: int = 16,
    confidence: float = 0.95,
    on_window: Callable[[int, int], None] | None = None,
) -> GradientReport:
    """Measures bias and noise of truncated gradients on a model, its params and its data::

        for each window of W steps, the carry kept between them:
            g        = gradient of the window's summed losses, through the whole window
            ĝ(K)     = the same with cuts every K steps          bias: mean of ĝ(K) − g
            Cov(law) = exact covariance of ARTBP's gradient      noise: √trace, sampled steps
        data: spread of g from window to window

    Squared norms of means are estimated without bias, by products of independent parts of the data;
    intervals by a jackknife over 16 runs of windows (or as many as there are windows), Student's t.
    What the window itself cuts is missing everywhere: take W several times the memory of the model,
    and compare two values of W where you are not sure.

    Cost per window: one forward and 1 + (number of truncation lengths) backward passes, and one
    forward pass more; for `num_variance_windows` of them `truncation_variance` with `num_samples`.
    Memory: (1 + number of truncation lengths) · 16 gradients, and the residuals of a window.

    Args:
      cell, loss_fn, params: as for `artbp.artbp`.
      carry: at the beginning of the stream, and after its resets.
      stream: N·W steps or a few more, which are left out; N ≥ 8. Arrays may be NumPy: a window at a
        time goes to the device.
      window_length: W.
      truncation_lengths: K's of TBPTT, each below W.
      laws: of ARTBP.
      rng_key: for offsets and samples; consumed.
      num_variance_windows: windows, evenly spread, in which the noise of the laws is measured.
      num_samples: steps sampled in each of them.
      confidence: level of each interval.
      on_window: called with (windows done, N) after each, for a progress bar.

    Raises:
      TypeError, ValueError: as `estimate` of `artbp.artbp`; a stream of fewer than 8 windows; bad
        options.
    """
    check_params(params)
    check_positive(integer=True, window_length=window_length, num_samples=num_samples)
    check_positive(integer=True, num_variance_windows=num_variance_windows)
    for law in laws:
        check_law(law)
    for length in truncation_lengths:
        if not 1 <= length < window_length:
            raise ValueError(
                f"truncation_lengths holds {length}; expected integers from 1 to window_length − 1 "
                f"= {window_length - 1}: within a window nothing longer cuts anything."
            )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; expected a number between 0 and 1.")
    stream.check_lengths()
    num_windows = stream.num_steps // window_length
    if num_windows < _FEWEST_WINDOWS:
        raise ValueError(
            f"The stream has {stream.num_steps} steps, {num_windows} windows of {window_length}; "
            f"expected {_FEWEST_WINDOWS} windows at least, for an interval."
        )
    params, initial_carry = _tree.as_arrays((params, carry))
    lengths = np.array(truncation_lengths, np.int32)
    spread = np.linspace(0, num_windows - 1, min(num_variance_windows, num_windows)).astype(int)
    offset_key, sample_key = jax.random.split(rng_key)

    sums = _Sums(min(_MOST_GROUPS, num_windows), num_windows)
    traces = []
    carry = initial_carry
    for i in range(num_windows):
        window = _window(stream, i * window_length, window_length)
        draws = jax.random.uniform(jax.random.fold_in(offset_key, i), lengths.shape)
        gates = _gates(lengths, np.floor(np.asarray(draws) * lengths), window_length)
        if i in spread:
            traces.append(
                truncation_variance(
                    cell,
                    loss_fn,
                    laws,
                    params,
                    carry,
                    window,
                    rng_key=jax.random.fold_in(sample_key, i),
                    num_samples=max(num_samples, 2),
                    initial_carry=initial_carry,
                )
            )
        gradients, carry = _gradients(
            cell, loss_fn, params, carry, initial_carry, window, jnp.asarray(gates)
        )
        sums.add(i, gradients)
        if on_window is not None:
            on_window(i + 1, num_windows)
    return _summarise(sums, lengths, laws, traces, window_length, confidence)


def describe(report: GradientReport) -> str:
    """In two or three sentences: what limits training on this model, and what truncation adds."""
    noise = report.data_noise
    parts = [
        f"The noise of the data is {noise:.3g} times the gradient of one window of "
        f"{report.window_length} steps."
    ]
    seen = [bias for bias in report.biases if bias.interval[0] > 0]
    if seen:
        longest = max(seen, key=lambda bias: bias.truncation_length)
        windows = longest.windows_to_matter
        noise = (
            f"as much as the noise of an average over {round(windows):,} windows"
            if windows >= 1.5
            else "as much as the noise of a single window, or more"
        )
        parts.append(
            f"TBPTT {longest.truncation_length} is biased by {_percent(longest.relative_bias)} of "
            f"the gradient, {noise}."
        )
        wrong = [b.truncation_length for b in seen if b.projection + b.projection_half_width < -1]
        if wrong:
            parts.append(f"TBPTT with K up to {max(wrong)} has the wrong sign.")
    elif report.biases:
        parts.append("No bias of TBPTT is seen at these lengths.")
    if report.noises:
        best = min(report.noises, key=lambda one: one.relative_noise)
        parts.append(
            f"ARTBP with {law_name(best.law)} adds {_percent(best.variance_to_data)} to the "
            "variance of the data."
        )
    return " ".join(parts)


def _percent(share: float) -> str:
    return f"{100 * share:,.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def law_name(law: TruncationLaw) -> str:
    """In the words of the call that makes it, such as "polynomial(16, 4)"."""
    name = type(law).__name__.lower()
    if not dataclasses.is_dataclass(law):
        return name
    values = [getattr(law, field.name) for field in dataclasses.fields(law)]
    words = [f"{v:g}" if isinstance(v, (int, float)) else f"{np.size(v)} ages" for v in values]
    return f"{name}({', '.join(words)})"


class _Sums:
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


@partial(jax.jit, donate_argnums=0)
def _add_to_group(sums: jax.Array, group: jax.Array, gradients: jax.Array) -> jax.Array:
    return sums.at[group].add(gradients)


@partial(jax.jit, static_argnames=("cell", "loss_fn"))
def _gradients(
    cell: Cell,
    loss_fn: LossFn,
    params: Any,
    carry: Any,
    initial_carry: Any,
    window: Stream,
    gates: jax.Array,
) -> tuple[jax.Array, Any]:
    """(gradients for each pattern of gates, `[patterns, P]`; the carry that leaves the window)."""
    found = gradients_of_gates(
        cell, loss_fn, params, carry, window, gates, initial_carry=initial_carry
    )
    leaving, _ = unroll(
        cell, params, carry, window.xs, resets=window.resets, initial_carry=initial_carry
    )
    flat = jax.vmap(lambda tree: flatten_util.ravel_pytree(tree)[0])(found)
    return flat.astype(jnp.result_type(float)), leaving


def _window(stream: Stream, start: int, length: int) -> Stream:
    steps = slice(start, start + length)
    fields = (stream.xs, stream.targets, stream.resets, stream.mask)
    return Stream(*jax.tree.map(lambda leaf: leaf[steps], fields), num_steps=length)


def _gates(lengths: np.ndarray, offsets: np.ndarray, num_steps: int) -> np.ndarray:
    """[1 + lengths, T] in JAX's default float dtype: no cuts, then cuts every K steps."""
    after = np.arange(1, num_steps + 1)  # steps done when the gate is met
    cut = (after[None, :] + offsets[:, None]) % lengths[:, None] == 0
    gates = np.concatenate([np.ones((1, num_steps)), np.where(cut, 0.0, 1.0)])
    return gates.astype(jnp.result_type(float))


def _summarise(
    sums: _Sums,
    lengths: np.ndarray,
    laws: Sequence[TruncationLaw],
    traces: Sequence[Any],
    window_length: int,
    confidence: float,
) -> GradientReport:
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

    whole, of_itself, with_whole = sums.products()
    norm2 = cross(whole)
    if norm2[-1] <= 0:
        raise ValueError(
            "The mean gradient cannot be told from zero on these windows, and nothing can be "
            "measured relative to it. Give a longer stream, or params farther from an optimum."
        )
    data = (kept @ sums.squares) / (kept @ counts) - norm2
    biases = []
    for length, itself, along in zip(lengths, of_itself, with_whole, strict=True):
        bias2, dot = cross(itself), cross(along)
        relative2, projection = bias2 / norm2, dot / norm2
        width = half_width(relative2)
        low, high = (max(relative2[-1] + sign * width, 0.0) ** 0.5 for sign in (-1, 1))
        relative = max(relative2[-1], 0.0) ** 0.5
        length2 = norm2[-1] + 2 * dot[-1] + bias2[-1]
        to_noise = relative * np.sqrt(norm2[-1] / data[-1])
        biases.append(
            TruncationBias(
                truncation_length=int(length),
                relative_bias=float(relative),
                interval=(float(low), float(high)),
                projection=float(projection[-1]),
                projection_half_width=half_width(projection),
                cosine=float((norm2[-1] + dot[-1]) / np.sqrt(norm2[-1] * max(length2, 1e-300))),
                bias_to_noise=float(to_noise),
                windows_to_matter=float(to_noise**-2) if to_noise > 0 else float("inf"),
            )
        )
    noises = []
    for i, law in enumerate(laws):
        samples = np.array([trace[i].trace for trace in traces])
        mean, width = samples.mean(), 0.0
        if len(samples) > 1:
            error = samples.std(ddof=1) / np.sqrt(len(samples))
            width = student_t_quantile(confidence, len(samples) - 1) * error
        low, high = (np.sqrt(max(mean + s * width, 0.0) / norm2[-1]) for s in (-1, 1))
        mean_length, mean_memory = _moments(law)
        noises.append(
            TruncationNoise(
                law=law,
                relative_noise=float(np.sqrt(mean / norm2[-1])),
                interval=(float(low), float(high)),
                variance_to_data=float(mean / data[-1]),
                mean_length=mean_length,
                mean_memory=mean_memory,
            )
        )
    return GradientReport(
        window_length=window_length,
        num_windows=int(counts.sum()),
        gradient_norm=float(np.sqrt(norm2[-1])),
        data_noise=float(np.sqrt(max(data[-1], 0.0) / norm2[-1])),
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
