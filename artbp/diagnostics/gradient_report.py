"""How biased is TBPTT, how noisy is ARTBP, how noisy are the data: on one model, in one unit.

The stream is read in windows of W steps, with the carry kept from one to the next. The gradient of
a window's losses through the window is what everything is compared with; its mean is the gradient,
and its spread from window to window the noise of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import flatten_util

from artbp import _tree
from artbp.diagnostics.gate_gradients import gradients_of_gates
from artbp.diagnostics.report import GradientReport
from artbp.diagnostics.report_statistics import GradientSums, summarise
from artbp.diagnostics.variance import truncation_variance
from artbp.stream import Stream
from artbp.truncation.base import TruncationLaw, check_law
from artbp.unrolls.checks import Cell, check_params, check_positive
from artbp.unrolls.readout import LossFn
from artbp.unrolls.unroll import unroll

# Windows next to each other share the text around their border: intervals come from leaving out
# one of so many runs of windows at a time.
_MOST_GROUPS = 16
_FEWEST_WINDOWS = 8


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
    for name, given in {"truncation_lengths": truncation_lengths, "laws": laws}.items():
        if not isinstance(given, (Sequence, np.ndarray)) or isinstance(given, str):
            raise TypeError(f"{name} is {given!r}; expected a sequence: put it into a list.")
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
            f"expected {_FEWEST_WINDOWS} windows at least, for an interval. Give a longer stream, "
            f"or a window_length of {stream.num_steps // _FEWEST_WINDOWS} at most."
        )
    params, initial_carry = _tree.as_arrays((params, carry))
    lengths = np.array(truncation_lengths, np.int32)
    spread = np.linspace(0, num_windows - 1, min(num_variance_windows, num_windows)).astype(int)
    offset_key, sample_key = jax.random.split(rng_key)

    sums = GradientSums(min(_MOST_GROUPS, num_windows), num_windows)
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
    return summarise(sums, lengths, laws, traces, window_length, confidence)


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
