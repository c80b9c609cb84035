"""Gradients of one stream for several patterns of gates, on one forward pass."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp import _tree
from artbp._checks import check_function, check_integer, is_integer
from artbp.stream import Stream, steps_to_run
from artbp.unrolls.arguments import as_carry, as_gates, complete_initial_carry
from artbp.unrolls.checks import Cell, check_params, check_stream
from artbp.unrolls.first_step import check_step
from artbp.unrolls.fused import fused_unroll, obstacle_to_fusion
from artbp.unrolls.readout import LossFn, loss_and_count
from artbp.unrolls.unroll import unroll


def gradients_of_gates(
    cell: Cell,
    loss_fn: LossFn,
    params: Any,
    carry: Any,
    stream: Stream,
    gates: jax.Array,
    *,
    initial_carry: Any = None,
) -> Any:
    """Computes the gradient of a stream's summed losses for each of D patterns of gates.

        [grad(lambda params: losses(unroll(cell, params, carry, xs, gates=g)).sum()) for g in gates]

    It takes one forward pass and D backward passes through `artbp.fused_unroll` or, for cells that
    cannot be fused, through `artbp.unroll`. A fused cell that is not one of `artbp.cells` runs
    forward twice. Memory: the residuals of T steps, and D cotangents of params and carry.

    Args:
      cell, loss_fn, params: as for `artbp.artbp`.
      carry: the carry that enters the first step to run (that after `stream.history`).
      stream: T steps to run. Their number must be known: under jit, no `stop`.
      gates: float `[D, T]`, or `[D, T, B]` for gates by row, as for `artbp.unroll`.
      initial_carry: the carry after a reset. Default: zeros, as in `artbp.unroll`.

    Returns:
      Like params, each leaf `[D, ...]`.

    Raises:
      TypeError, ValueError: as `artbp.unroll` and `artbp.artbp`; gates of another shape; one of
        `artbp.cells` that closes over a traced array.
    """
    check_function(cell=cell, loss_fn=loss_fn)
    check_params(params)
    params, carry = _tree.as_arrays(params), as_carry(carry)
    initial_carry = complete_initial_carry(carry, initial_carry)
    check_stream(stream)
    stream = steps_to_run(stream)
    check_step(cell, loss_fn, params, carry, *_tree.index((stream.xs, stream.targets), 0))
    gates = jnp.asarray(as_gates(gates))
    num_steps = stream.num_steps
    if gates.ndim not in (2, 3) or gates.shape[1] != num_steps:
        expected = f"[D, T] or [D, T, B], D patterns of T = {num_steps} steps"
        raise ValueError(f"gates has shape {gates.shape}; expected {expected}.")
    is_masked = stream.mask is not None
    valid = jnp.asarray(stream.mask) if is_masked else jnp.ones((num_steps,), bool)
    xs = _tree.as_arrays(stream.xs)
    # A fused pattern costs half as much: its weight gradient is not summed step by step.
    run = unroll if obstacle_to_fusion(cell, params, carry, xs) else fused_unroll
    options = {"resets": stream.resets, "initial_carry": initial_carry}

    def gradient(gates: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            _, ys = run(cell, params, carry, xs, gates=gates, **options)
            targets = stream.targets
            return loss_and_count(loss_fn, params, ys, targets, valid, is_masked=is_masked)[0]

        return jax.grad(loss)(params)

    # The gradient is inside vmap: the forward pass does not depend on the gates, so vmap runs the
    # cell once. The other order would run it D times, and JAX 0.10 refuses it (a custom_jvp within
    # a scan, mapped over the factor alone).
    return jax.vmap(gradient)(gates)


def tbptt_gates(lengths: Any, num_steps: int, offsets: Any = 0) -> np.ndarray:
    """Makes patterns of gates `[1 + lengths, T]`: no cuts, then cuts every K steps for each K.

    `offsets`: steps of the first segment that lie before the window, a number or one for each K.
    """
    after = np.arange(1, num_steps + 1)  # steps done when the gate acts
    offsets = np.broadcast_to(offsets, (len(lengths),))[:, None]
    cuts = (after + offsets) % np.asarray(lengths, int)[:, None] == 0
    gates = np.concatenate([np.ones((1, num_steps)), np.where(cuts, 0.0, 1.0)])
    return gates.astype(jnp.result_type(float))


def check_truncation_lengths(lengths: Sequence[int], window_length: int) -> None:
    """Raises ValueError unless every K is an integer below the window length."""
    check_integer(1, window_length=window_length)
    wrong = [k for k in lengths if not (is_integer(k) and 1 <= k < window_length)]
    if wrong:
        expected = f"integers from 1 to window_length − 1 = {window_length - 1}"
        raise ValueError(f"truncation_lengths holds {wrong[0]!r}; expected {expected}.")
