"""Measures how much of a window's gradient goes through the windows before it."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from artbp import _tree
from artbp._checks import check_function, check_positive, hashable
from artbp.diagnostics.lag_gradients import UnrolledWindow, prefix_norms, unroll_window
from artbp.stream import Stream, new_steps
from artbp.unrolls.arguments import complete_initial_carry
from artbp.unrolls.checks import Cell, check_finite, check_params, check_stream
from artbp.unrolls.readout import LossFn
from artbp.unrolls.unroll import unroll


class LookBackProfile(NamedTuple):
    """The result of `look_back_profile`; NumPy float64.

    Attributes:
      remainders: ‖R_1‖², …, ‖R_J‖², means over the sampled windows. R_j is the part of a window's
        gradient that goes through the windows j and more back, J at most.
      gradient: ‖R_0‖², the mean squared norm of a window's gradient.
      standard_errors: of `remainders`, from their spread over the windows; NaN for one window.
      truncation_length, num_samples: K, and how many windows were sampled.
    """

    remainders: np.ndarray
    gradient: float
    standard_errors: np.ndarray
    truncation_length: int
    num_samples: int


def look_back_profile(
    cell: Cell,
    loss_fn: LossFn,
    params: Any,
    carry: Any,
    stream: Stream,
    *,
    truncation_length: int,
    num_windows: int,
    num_samples: int = 16,
    initial_carry: Any = None,
) -> LookBackProfile:
    """Measures how far back a window's gradient reaches, for `truncation.optimal_look_back`.

        R_j = gradient of the losses of window n through the windows n − j, …, n − J

    Windows have K steps. The sampled windows n are spread evenly over the stream. The gradient
    through windows further back than J is missing from all R_j, so choose J so large that the last
    entries are small.

    Cost: one forward pass over the stream. Then for each sample, two passes forward and backward
    over J + 1 windows. Memory: a carry for each window of the stream, two carries for each step of
    J + 1 windows, and one gradient.

    Args:
      cell, loss_fn, params: as for `artbp.artbp`.
      carry: the carry that enters the first step to run, which is the first after
        `stream.history`.
      stream: at least (J + 1)·K steps to run; more to average over more windows.
      truncation_length: K, the steps of a window.
      num_windows: J ≥ 1, the number of older windows.
      num_samples: the number of windows n; fewer if the stream does not have as many.
      initial_carry: the carry after a reset. Default: zeros, as in `artbp.unroll`.

    Raises:
      TypeError, ValueError: as for `estimate` of `artbp.artbp`; a stream that is too short.
    """
    check_function(cell=cell, loss_fn=loss_fn)
    check_params(params)
    check_finite(params)
    options = {"truncation_length": truncation_length, "num_windows": num_windows}
    check_positive(integer=True, num_samples=num_samples, **options)
    check_stream(stream)
    full = int(stream.num_new) // truncation_length
    if full <= num_windows:
        raise ValueError(
            f"The stream has {full} windows of {truncation_length} steps; expected at least "
            f"num_windows + 1 = {num_windows + 1}."
        )
    cell, loss_fn = hashable(cell), hashable(loss_fn)
    params, carry = _tree.as_arrays((params, carry))
    initial_carry = complete_initial_carry(carry, initial_carry)
    last = np.unique(np.linspace(num_windows, full - 1, num_samples).round().astype(int))
    whole = new_steps(stream, 0, full * truncation_length)
    entering = _entering(cell, params, carry, initial_carry, whole, truncation_length)
    found, size = [], (num_windows + 1) * truncation_length
    for first in (last - num_windows).tolist():
        steps = new_steps(stream, first * truncation_length, size)
        carry = _tree.index(entering, first)
        window = unroll_window(cell, loss_fn, params, carry, steps, initial_carry)
        found.append(remainders(window, truncation_length, size - truncation_length))
    norms = np.array(found)
    if not np.isfinite(norms).all():
        raise ValueError(
            "The gradient of a window is NaN or infinite, so no profile can be measured. Expected "
            "finite data. Check xs, targets and carry."
        )
    spread = norms.std(axis=0, ddof=1) if len(last) > 1 else np.full(norms.shape[1], np.nan)
    mean, errors = norms.mean(axis=0), spread / np.sqrt(len(last))
    return LookBackProfile(mean[1:], float(mean[0]), errors[1:], truncation_length, len(last))


def summed_remainders(
    window: UnrolledWindow, truncation_length: int, num_losses: int, num_samples: int
) -> np.ndarray:
    """Σ_n ‖R_{n,j}‖² for j = 1, 2, …, over the windows n that make up the last `num_losses` steps.

    Windows have K steps and end where `window` ends; look-backs end where it begins. The sum is
    estimated from `num_samples` evenly spaced windows n. It is exact if there are no more, and K
    divides `num_losses`.
    """
    num_steps, full = window.stream.num_steps, num_losses // truncation_length
    count = min(num_samples, full)
    total = np.zeros(1 + num_steps // truncation_length)
    for i in range(count):
        back = 1 + (2 * i + 1) * full // (2 * count)  # 1 is the last window
        found = remainders(window, truncation_length, num_steps - back * truncation_length)
        total[: len(found)] += found
    return total[1:] * num_losses / truncation_length / count


def remainders(window: UnrolledWindow, truncation_length: int, first: int) -> np.ndarray:
    """‖R_0‖², ‖R_1‖², … of the window of K steps that begins with step `first`.

    They go back to the beginning of `window`, where the oldest window may be shorter than K.
    """
    end = first + truncation_length
    norms = np.asarray(prefix_norms(window, np.int32(first), np.int32(end)), np.float64)
    return norms[np.arange(end - 1, -1, -truncation_length)]


@partial(jax.jit, static_argnames=("cell", "truncation_length"))
def _entering(
    cell: Cell,
    params: Any,
    carry: Any,
    initial_carry: Any,
    stream: Stream,
    truncation_length: int,
) -> Any:
    """The carry that enters each window of K steps, `[windows, ...]`."""

    def run(carry: Any, n: jax.Array) -> tuple[Any, Any]:
        xs, resets = _tree.slice_steps(
            (stream.xs, stream.resets), n * truncation_length, truncation_length
        )
        gates = jnp.ones(truncation_length)  # gives the number of steps if xs is None
        options = {"gates": gates, "resets": resets, "initial_carry": initial_carry}
        return unroll(cell, params, carry, xs, **options)[0], carry

    num_windows = stream.num_steps // truncation_length
    return lax.scan(run, carry, jnp.arange(num_windows, dtype=jnp.int32))[1]
