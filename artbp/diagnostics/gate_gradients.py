"""Gradients of one stream for several patterns of gates, on one forward pass."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls.checks import Cell, check_params
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
    """The gradient of a stream's summed losses for each of D patterns of gates.

        [grad(lambda params: losses(unroll(cell, params, carry, xs, gates=g)).sum()) for g in gates]

    by one forward pass and D backward passes: those of `artbp.fused_unroll`, which runs a cell that
    is not one of `artbp.cells` forward twice, or where that refuses the cell, of `artbp.unroll`.
    Memory: what the backward pass keeps of all T steps once, and D times the cotangents of params
    and carry.

    Args:
      cell, loss_fn, params, carry: as for `artbp.artbp`.
      stream: taken as a whole, from `carry` on.
      gates: float `[D, T]`, or `[D, T, B]` for gates by row, as for `artbp.unroll`.
      initial_carry: after a reset. Default: `carry`, which is right at the beginning of a stream.

    Returns:
      Like params, each leaf `[D, ...]`.

    Raises:
      TypeError, ValueError: as `artbp.unroll` and `artbp.artbp`; gates of another shape; one of
        `artbp.cells` that closes over a traced array.
    """
    check_params(params)
    params, carry = _tree.as_arrays((params, carry))
    initial_carry = carry if initial_carry is None else _tree.as_arrays(initial_carry)
    stream.check_lengths()
    gates = jnp.asarray(gates)
    num_steps = stream.num_steps
    if gates.ndim not in (2, 3) or gates.shape[1] != num_steps:
        raise ValueError(
            f"gates has shape {gates.shape}; expected [D, T] or [D, T, B] with T = {num_steps} "
            "steps, one pattern of gates for each of D gradients."
        )
    valid = jnp.ones((num_steps,), bool) if stream.mask is None else jnp.asarray(stream.mask, bool)
    xs = _tree.as_arrays(stream.xs)
    # Fused, a pattern more costs half as much: its weight gradient is not added up step by step.
    is_fusable = obstacle_to_fusion(cell, params, carry, xs) is None
    run = fused_unroll if is_fusable else unroll

    def gradient(gates: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            _, ys = run(
                cell,
                params,
                carry,
                xs,
                gates=gates,
                resets=stream.resets,
                initial_carry=initial_carry,
            )
            return loss_and_count(loss_fn, params, ys, stream.targets, valid)[0]

        return jax.grad(loss)(params)

    # In this order, gradient within vmap: the values of the forward pass do not depend on the
    # gates, so vmap leaves them alone and the cell runs once. The other order would run it D
    # times, and JAX 0.10 refuses it: a custom_jvp within a scan, mapped over the factor alone.
    return jax.vmap(gradient)(gates)
