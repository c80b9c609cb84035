"""Less variance without a bias: several draws of boundaries on one forward pass, coupled draws.

The carries do not depend on the boundaries, so one forward pass serves any number of draws. Their
mean is unbiased, whatever the coupling between them (see `artbp.truncation.coupling`), and has a
D-th of the variance of one draw where they are independent.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.stream import Stream
from artbp.truncation.base import TruncationLaw
from artbp.truncation.coupling import Coupling, check_coupling, sample_row_gates
from artbp.truncation.deterministic import check_length
from artbp.unrolls.checks import Cell, check_params
from artbp.unrolls.fused import fused_unroll, obstacle_to_fusion
from artbp.unrolls.readout import LossFn, loss_and_count
from artbp.unrolls.unroll import unroll


class SampledTrace(NamedTuple):
    """A sampled trace of a covariance; float scalars.

    Attributes:
      trace: the sum of the variances of all entries of the gradient.
      standard_error: of the trace; trace ± 1.96 · standard_error is an interval of about 95 %.
    """

    trace: jax.Array
    standard_error: jax.Array


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


def multi_draw_gradient(
    cell: Cell,
    loss_fn: LossFn,
    law: TruncationLaw,
    params: Any,
    carry: Any,
    stream: Stream,
    rng_key: jax.Array,
    *,
    num_draws: int,
    coupling: Coupling = "independent",
) -> Any:
    """The mean ARTBP gradient of D draws of boundaries on one forward pass.

        (1/D) Σ_d gradient(gates[:, d]),    gates = sample_row_gates(law, key, T, D, coupling)

    Unbiased for the stream's BPTT gradient under every coupling, because each draw is. With
    independent draws the variance is that of a single draw divided by D. Costs one forward pass
    and D backward passes; memory: see `gradients_of_gates`.

    Args:
      cell, loss_fn, law, params, carry: as for `artbp.artbp`.
      stream: the window, from `carry` on; its end cuts nothing.
      rng_key: consumed.
      num_draws: D. The rows of a batch share the boundaries of a draw.
      coupling: of the draws; see `artbp.truncation.sample_row_gates`.

    Returns:
      Like params: the gradient of the summed losses.

    Raises:
      TypeError, ValueError, NotImplementedError: as `gradients_of_gates` and `sample_row_gates`.
    """
    gates = sample_row_gates(law, rng_key, stream.num_steps, num_draws, coupling).T
    gradients = gradients_of_gates(cell, loss_fn, params, carry, stream, gates)
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), gradients)


def coupling_variance(
    cell: Cell,
    loss_fn: LossFn,
    law: TruncationLaw,
    params: Any,
    carry: Any,
    stream: Stream,
    rng_key: jax.Array,
    *,
    coupling: Coupling,
    num_samples: int,
    num_draws: int | None = None,
    batch_size: int = 16,
) -> SampledTrace:
    """The variance of the gradient under a coupling, sampled: the mean of ‖ĝ − g‖².

        ĝ = gradient of the summed losses under drawn gates,    g = BPTT gradient = E[ĝ]

    The squared distances from the exact mean are independent, so the standard error is theirs,
    std/√N. Danger: they have heavy tails (rare long segments with large weights), so with few
    samples both numbers are typically too small: compare couplings at thousands of samples.
    Where boundaries are sure (c = 1) g is not the mean, and this is the mean squared error.

    Args:
      cell, loss_fn, law, params, carry, stream: as for `multi_draw_gradient`.
      rng_key: consumed.
      coupling: see `artbp.truncation.sample_row_gates`.
      num_samples: N ≥ 2.
      num_draws: None: each row of the batch has its own boundaries, coupled over the rows.
        D: ĝ is `multi_draw_gradient`, coupled over the draws.
      batch_size: samples whose backward passes run side by side on one forward pass.

    Raises:
      TypeError, ValueError, NotImplementedError: as `multi_draw_gradient`; num_samples below 2;
        a carry without rows to couple.
    """
    check_coupling(coupling)
    num_samples = check_length(num_samples, "num_samples")
    batch_size = check_length(batch_size, "batch_size")
    if num_samples < 2:
        raise ValueError("num_samples=1; expected 2 or more: one sample has no spread.")
    num_steps = stream.num_steps
    ones = jnp.ones((1, num_steps), jnp.result_type(float))
    exact = gradients_of_gates(cell, loss_fn, params, carry, stream, ones)

    if num_draws is None:
        num_rows = _num_rows(carry)

        def gates_of(rng_key: jax.Array) -> jax.Array:
            return sample_row_gates(law, rng_key, num_steps, num_rows, coupling)[None]
    else:

        def gates_of(rng_key: jax.Array) -> jax.Array:
            return sample_row_gates(law, rng_key, num_steps, num_draws, coupling).T

    def squared_distances(rng_keys: jax.Array) -> jax.Array:
        """‖ĝ − g‖² of each key."""
        gates = jax.vmap(gates_of)(rng_keys)
        flat = jnp.reshape(gates, (-1, *gates.shape[2:]))
        gradients = gradients_of_gates(cell, loss_fn, params, carry, stream, flat)

        def of_leaf(leaf: jax.Array, mean: jax.Array) -> jax.Array:
            draws = jnp.reshape(leaf, (*gates.shape[:2], -1))
            return jnp.sum((jnp.mean(draws, axis=1) - jnp.reshape(mean, (1, -1))) ** 2, axis=1)

        return jax.tree.reduce(jnp.add, jax.tree.map(of_leaf, gradients, exact))

    num_batches = -(-num_samples // batch_size)
    keys = jax.random.split(rng_key, (num_batches, batch_size))
    samples = jnp.ravel(lax.map(squared_distances, keys))[:num_samples]
    return SampledTrace(jnp.mean(samples), jnp.std(samples, ddof=1) / num_samples**0.5)


def _num_rows(carry: Any) -> int:
    """B: the first axis of the carry's float leaves."""
    shapes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(carry) if _tree.is_inexact(leaf)}
    if len(shapes) != 1 or shapes == {()}:
        raise ValueError(
            f"The float leaves of the carry begin with the axes {sorted(shapes)}; expected one "
            "and the same axis of rows in all of them. Without rows, pass num_draws."
        )
    return shapes.pop()[0]
