"""Measures how much of a window's gradient goes through the windows before it."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls.checks import Cell, check_params, check_positive
from artbp.unrolls.readout import LossFn, loss_and_count
from artbp.unrolls.unroll import unroll


class LookBackProfile(NamedTuple):
    """The result of `look_back_profile`; NumPy float64.

    Attributes:
      remainders: ‖R_1‖², …, ‖R_J‖², means over the sampled windows. R_j is the part of a window's
        gradient that goes through the windows j and more back, J at most.
      gradient: ‖R_0‖², the mean squared norm of a window's gradient.
      standard_errors: of `remainders`, from their spread over the windows.
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

    Cost: one forward pass over the stream, and J + 1 windows forward and backward for each sample.

    Args:
      cell, loss_fn, params: as for `artbp.artbp`.
      carry: the carry at the beginning of the stream.
      stream: at least (J + 1)·K steps; more to average over more windows.
      truncation_length: K, the steps of a window.
      num_windows: J ≥ 1, the number of older windows.
      num_samples: the number of windows n; fewer if the stream does not have as many.
      initial_carry: the carry after a reset. Default: `carry`.

    Raises:
      TypeError, ValueError: as for `estimate` of `artbp.artbp`; a stream that is too short.
    """
    check_params(params)
    options = {"truncation_length": truncation_length, "num_windows": num_windows}
    check_positive(integer=True, num_samples=num_samples, **options)
    stream.check_lengths()
    full = stream.num_steps // truncation_length
    if full <= num_windows:
        raise ValueError(
            f"The stream has {full} windows of {truncation_length} steps; expected at least "
            f"num_windows + 1 = {num_windows + 1}."
        )
    params, carry = _tree.as_arrays((params, carry))
    initial_carry = carry if initial_carry is None else _tree.as_arrays(initial_carry)
    last = np.unique(np.linspace(num_windows, full - 1, num_samples).round().astype(np.int32))
    norms = _norms(
        cell, loss_fn, params, carry, initial_carry, stream, jnp.asarray(last), **options
    )
    norms = np.asarray(norms, np.float64)
    spread = norms.std(axis=0, ddof=1) if len(last) > 1 else np.full(norms.shape[1], np.nan)
    mean, errors = norms.mean(axis=0), spread / np.sqrt(len(last))
    return LookBackProfile(mean[1:], float(mean[0]), errors[1:], truncation_length, len(last))


@partial(jax.jit, static_argnames=("cell", "loss_fn", "truncation_length", "num_windows"))
def _norms(
    cell: Cell,
    loss_fn: LossFn,
    params: Any,
    carry: Any,
    initial_carry: Any,
    stream: Stream,
    last: jax.Array,
    *,
    truncation_length: int,
    num_windows: int,
) -> jax.Array:
    """‖R_0‖², …, ‖R_J‖² of each window of `last`, `[windows, J + 1]`."""

    def run(params: Any, carry: Any, n: jax.Array) -> tuple[Any, Any]:
        xs, resets = _tree.slice_steps(
            (stream.xs, stream.resets), n * truncation_length, truncation_length
        )
        gates = jnp.ones(truncation_length)  # gives the number of steps if xs is None
        return unroll(
            cell, params, carry, xs, gates=gates, resets=resets, initial_carry=initial_carry
        )

    full = stream.num_steps // truncation_length
    _, entering = lax.scan(
        lambda carry, n: (run(params, carry, n)[0], carry), carry, jnp.arange(full, dtype=jnp.int32)
    )

    def norms(n: jax.Array) -> jax.Array:
        first = n - num_windows
        targets, mask = _tree.slice_steps(
            (stream.targets, stream.mask), n * truncation_length, truncation_length
        )
        valid = jnp.ones(truncation_length, bool) if mask is None else mask.astype(bool)

        def loss(params_of: Any) -> jax.Array:
            """The loss of window n as a function of the params of each window, [J + 1, ...]."""
            older, newest = _split(params_of)
            steps = (older, first + jnp.arange(num_windows, dtype=jnp.int32))
            carry, _ = lax.scan(
                lambda carry, step: (run(step[0], carry, step[1])[0], None),
                _tree.index(entering, first),
                steps,
            )
            _, ys = run(newest, carry, n)
            return loss_and_count(loss_fn, newest, ys, targets, valid)[0]

        gradients = jax.grad(loss)(_tree.repeat(params, num_windows + 1))

        def of_leaf(leaf: jax.Array) -> jax.Array:
            remainders = jnp.cumsum(leaf.astype(_tree.at_least_float32(leaf.dtype)), axis=0)
            return jnp.sum(jnp.abs(remainders) ** 2, axis=tuple(range(1, leaf.ndim)))

        total = jax.tree.reduce(jnp.add, jax.tree.map(of_leaf, gradients))
        return total[::-1]

    return lax.map(norms, last)


def _split(params_of: Any) -> tuple[Any, Any]:
    """(those of all windows but the last, those of the last)."""
    older = jax.tree.map(lambda leaf: leaf[:-1], params_of)
    return older, jax.tree.map(lambda leaf: leaf[-1], params_of)
