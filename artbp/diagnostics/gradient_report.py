"""The gradient report: bias and noise of truncated gradients, and data noise, in one unit."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp import _tree
from artbp._checks import check_function, check_key, check_positive, hashable
from artbp.diagnostics.gate_gradients import (
    check_truncation_lengths,
    gradients_of_gates,
    tbptt_gates,
)
from artbp.diagnostics.interval import check_confidence
from artbp.diagnostics.lag_gradients import flows_through_carry, unroll_window
from artbp.diagnostics.look_back_profile import summed_remainders
from artbp.diagnostics.real_coordinates import ravel_real
from artbp.diagnostics.report import GradientReport
from artbp.diagnostics.report_statistics import GradientSums, summarise
from artbp.diagnostics.variance import truncation_variance
from artbp.stream import Stream, new_steps
from artbp.truncation.base import TruncationLaw, check_law
from artbp.unrolls.arguments import complete_initial_carry
from artbp.unrolls.checks import Cell, check_params, check_stream
from artbp.unrolls.readout import LossFn
from artbp.unrolls.unroll import unroll

# Neighbouring windows are dependent, so the jackknife leaves out groups of consecutive windows.
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
    initial_carry: Any = None,
    on_window: Callable[[int, int], None] | None = None,
) -> GradientReport:
    """Measures the bias and the noise of truncated gradients for given model, params and data::

        for each window of W steps, with the carry of the window before:
            g        = gradient of the window's summed losses, through the whole window
            ĝ(K)     = the same with boundaries every K steps    bias: mean of ĝ(K) − g
            Cov(law) = covariance of ARTBP's gradient            noise: √trace, by its exact formula
        the same for unbiased TBPTT(K), whose look-backs end where the window before begins
        data noise: spread of g over windows

    All are relative to the norm of the gradient, the mean of g. Dependencies longer than W are not
    measured: take W several times the memory of the model; if in doubt, compare two values of W.

    To estimate ‖mean‖² without bias, the means of different groups of windows are multiplied.
    Intervals are Student's t with a jackknife over 16 groups, or one per window if there are fewer.

    Cost per window: two forward and 1 + (number of truncation lengths) backward passes. In
    `num_variance_windows` of the windows, `truncation_variance` with `num_samples` steps is added,
    and for each truncation length up to `num_samples` times a backward pass with and one without
    weight gradients, over W to 2·W steps. Memory: (1 + number of truncation lengths) · 16
    gradients, the residuals of a window, and 4·W carries.

    Args:
      cell, loss_fn, params: as for `artbp.artbp`.
      carry: the carry that enters the first step to run (that after `stream.history`).
      stream: N·W steps to run, N ≥ 8, then a remainder. NumPy arrays move to the device window by
        window.
      window_length: W, in time steps.
      truncation_lengths: K's of TBPTT and of unbiased TBPTT, each below W. The laws of the latter
        are those of `GradientReport.look_backs`.
      laws: of ARTBP.
      rng_key: draws offsets and samples; consumed.
      num_variance_windows: number of evenly spaced windows in which the laws' noise is measured.
      num_samples: sampled steps in each of these windows, and sampled windows of K steps.
      confidence: level of each interval.
      initial_carry: the carry after a reset. Default: zeros, as in `artbp.unroll`.
      on_window: called with (windows done, N) after each window, for a progress bar.

    Raises:
      TypeError, ValueError: as `estimate` of `artbp.artbp`; fewer than 8 windows; bad options; a
        gradient that is zero, NaN or infinite, so that nothing can be measured.
    """
    check_function(cell=cell, loss_fn=loss_fn)
    check_params(params)
    check_key(rng_key)
    check_positive(integer=True, window_length=window_length, num_samples=num_samples)
    check_positive(integer=True, num_variance_windows=num_variance_windows)
    for name, given in {"truncation_lengths": truncation_lengths, "laws": laws}.items():
        if not isinstance(given, (Sequence, np.ndarray)) or isinstance(given, str):
            raise TypeError(f"{name} is {given!r}; expected a sequence: put it into a list.")
    for law in laws:
        check_law(law)
    check_truncation_lengths(truncation_lengths, window_length)
    check_confidence(confidence)
    check_stream(stream)
    num_steps = int(stream.num_new)
    num_windows = num_steps // window_length
    if num_windows < _FEWEST_WINDOWS:
        raise ValueError(
            f"The stream has {num_windows} windows of {window_length} steps; expected at least "
            f"{_FEWEST_WINDOWS}. Give a longer stream, or a window_length of "
            f"{num_steps // _FEWEST_WINDOWS} at most."
        )
    cell, loss_fn = hashable(cell), hashable(loss_fn)
    params, carry = _tree.as_arrays((params, carry))
    initial_carry = complete_initial_carry(carry, initial_carry)
    lengths = np.array(truncation_lengths, np.int32)
    spread = np.linspace(0, num_windows - 1, min(num_variance_windows, num_windows)).astype(int)
    offset_key, sample_key = jax.random.split(rng_key)
    options: dict[str, Any] = {"num_samples": max(num_samples, 2), "confidence": confidence}
    options |= {"initial_carry": initial_carry}

    sums = GradientSums(min(_MOST_GROUPS, num_windows), num_windows)
    traces, profiles, flows = [], [], []
    before = carry  # the carry that entered the window before
    for i in range(num_windows):
        window = new_steps(stream, i * window_length, window_length)
        data = params, carry, window
        if i in spread:
            key = jax.random.fold_in(sample_key, i)
            traces.append(truncation_variance(cell, loss_fn, laws, *data, rng_key=key, **options))
        if i in np.maximum(spread, 1):
            pair = new_steps(stream, (i - 1) * window_length, 2 * window_length)
            unrolled = unroll_window(cell, loss_fn, params, before, pair, initial_carry)
            given = window_length, num_samples
            flows.append(flows_through_carry(unrolled))
            profiles.append([summed_remainders(unrolled, int(k), *given) for k in lengths])
        draws = jax.random.uniform(jax.random.fold_in(offset_key, i), lengths.shape)
        gates = tbptt_gates(lengths, window_length, np.floor(np.asarray(draws) * lengths))
        before = carry
        gradients, carry = _gradients(cell, loss_fn, *data, initial_carry, jnp.asarray(gates))
        sums.add(i, gradients)
        if on_window is not None:
            on_window(i + 1, num_windows)
    report = summarise(sums, lengths, laws, traces, profiles, window_length, confidence)
    enters, has_memory = np.any(flows, axis=0)
    return report._replace(is_blind=bool(has_memory and not enters))


@partial(jax.jit, static_argnames=("cell", "loss_fn"))
def _gradients(
    cell: Cell,
    loss_fn: LossFn,
    params: Any,
    carry: Any,
    window: Any,
    initial_carry: Any,
    gates: Any,
) -> tuple[jax.Array, Any]:
    """Returns the gradient for each pattern of gates, `[patterns, P]`, and the final carry."""
    options = {"initial_carry": initial_carry}
    found = gradients_of_gates(cell, loss_fn, params, carry, window, gates, **options)
    ones = jnp.ones(window.num_steps)  # a cell without inputs has no other number of steps
    options |= {"gates": ones, "resets": window.resets}
    final_carry, _ = unroll(cell, params, carry, window.xs, **options)
    flat = jax.vmap(lambda tree: ravel_real(tree)[0])(found)
    return flat.astype(jnp.result_type(float)), final_carry
