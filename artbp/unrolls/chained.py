"""The `exact` and `pow2` segment kernels: a segment as a chain of scans of static length.

A static length lets XLA compile a `lax.scan` that knows its trip count and keeps its residuals, and
costs one program per length. `exact` takes the whole segment as one scan (up to `block_size`
steps, then blocks), so each new length is a new program. `pow2` splits the length into powers
of two, so that all lengths share a few programs: forward through the chain, then backward.

Both are driven from the host, because the host has to know the length; lengths never depend on
data, so it can know them ahead of the device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls.readout import loss_and_count
from artbp.unrolls.segment import Problem, SegmentResult
from artbp.unrolls.unroll import unroll


def exact_pieces(length: int, block_size: int) -> list[int]:
    """One piece, or blocks where the segment is longer than a block; the remainder comes last.

    >>> exact_pieces(7, 3)
    [3, 3, 1]
    """
    blocks, rest = divmod(length, block_size)
    return [block_size] * blocks + [rest] * (rest > 0)


def pow2_pieces(length: int, block_size: int) -> list[int]:
    """Powers of two no larger than `block_size`, smallest first, that sum to `length`.

    Smallest first, because the last piece is the one whose forward pass need not run twice.

    >>> pow2_pieces(13, 8)
    [1, 4, 8]
    >>> pow2_pieces(13, 4)
    [1, 4, 4, 4]
    """
    largest = 1 << (block_size.bit_length() - 1)
    rest = length % largest
    small = [1 << bit for bit in range(rest.bit_length()) if rest >> bit & 1]
    return small + [largest] * (length // largest)


def segment_kernel(
    problem: Problem, split: Callable[[int, int], list[int]], block_size: int, cache_size: int
) -> Callable[..., SegmentResult]:
    """Builds a host-driven kernel with the arguments of `dynamic.segment_gradient`.

    Args:
      problem: cell, loss function and gates.
      split: `exact_pieces` or `pow2_pieces`.
      block_size: the longest piece, hence the most steps whose residuals are kept at a time.
      cache_size: how many piece lengths keep their compiled programs; the least recently used
        goes first. Two programs a length: forward, and forward with backward.
    """

    @functools.lru_cache(maxsize=cache_size)
    def programs(num_steps: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return (
            jax.jit(functools.partial(_forward, problem, num_steps)),
            jax.jit(functools.partial(_backward, problem, num_steps), donate_argnames=("total",)),
        )

    def segment_gradient(
        params: Any,
        carry: Any,
        initial_carry: Any,
        scratch: Any,
        stream: Stream,
        start: int,
        length: int,
    ) -> SegmentResult:
        pieces = split(length, block_size)
        offsets = np.cumsum([0, *pieces[:-1]]).astype(np.int32)
        entering = [carry]
        for num_steps, offset in zip(pieces[:-1], offsets[:-1], strict=True):
            forward, _ = programs(num_steps)
            at = np.int32(start + offset)
            entering.append(forward(params, entering[-1], initial_carry, stream, at))

        total = _zero_total(params)
        cotangent = jax.tree.map(jnp.zeros_like, _tree.partition(carry)[0])
        final_carry = None
        for num_steps, offset in zip(reversed(pieces), reversed(offsets), strict=True):
            _, backward = programs(num_steps)
            at = np.int32(start + offset)
            total, cotangent, leaving = backward(
                params, entering.pop(), initial_carry, stream, at, offset, cotangent, total=total
            )
            final_carry = leaving if final_carry is None else final_carry
        grads, loss_sum, num_losses = total
        gates = np.asarray(problem.compensation(np.arange(1, length)), np.float64)
        return SegmentResult(
            grads=jax.tree.map(lambda g, x: g.astype(x.dtype), grads, params),
            loss_sum=loss_sum,
            num_losses=num_losses,
            carry=final_carry,
            scratch=scratch,
            max_compensation=jnp.asarray(gates.max(initial=1.0), loss_sum.dtype),
            max_weight=jnp.asarray(gates.prod(), loss_sum.dtype),
        )

    return segment_gradient


def _forward(
    problem: Problem,
    num_steps: int,
    params: Any,
    carry: Any,
    initial_carry: Any,
    stream: Stream,
    at: jax.Array,
) -> Any:
    """The carry after `num_steps` steps from step `at` of the stream."""
    xs, _, resets, _ = _slice(stream, at, num_steps)
    # Gates of 1 only say how many steps to run: without inputs nothing else does.
    gates = None if jax.tree.leaves(xs) else jnp.ones(num_steps)
    carry, _ = unroll(
        problem.cell, params, carry, xs, gates=gates, resets=resets, initial_carry=initial_carry
    )
    return carry


def _backward(
    problem: Problem,
    num_steps: int,
    params: Any,
    carry: Any,
    initial_carry: Any,
    stream: Stream,
    at: jax.Array,
    offset: jax.Array,
    cotangent: Any,
    *,
    total: tuple[Any, jax.Array, jax.Array],
) -> tuple[tuple[Any, jax.Array, jax.Array], Any, Any]:
    """Backpropagates through the piece of `num_steps` steps that begins `offset` into its segment.

    Args:
      at: the stream's step at which the piece begins.
      cotangent: of the carry that leaves the piece, seen from the next piece (zero at the
        boundary); the gate of the piece's last step is applied here, inside the unroll.
      total: (gradient, loss, number of losses) of the pieces behind this one.

    Returns:
      (total with this piece, cotangent of the carry that enters, the carry that leaves).
    """
    xs, targets, resets, mask = _slice(stream, at, num_steps)
    ages = offset + jnp.arange(1, num_steps + 1, dtype=jnp.int32)
    gates = jnp.asarray(problem.compensation(ages), jnp.result_type(float))
    valid = jnp.ones(num_steps, bool) if mask is None else mask.astype(bool)
    float_carry, carry_rest = _tree.partition(carry)

    def piece(params: Any, float_carry: Any) -> tuple[Any, Any]:
        leaving, ys = unroll(
            problem.cell,
            params,
            _tree.combine(float_carry, carry_rest),
            xs,
            gates=gates,
            resets=resets,
            initial_carry=initial_carry,
        )
        loss, count = loss_and_count(problem.loss_fn, params, ys, targets, valid)
        return (loss, _tree.partition(leaving)[0]), (count, leaving)

    (loss, _), pullback, (count, leaving) = jax.vjp(piece, params, float_carry, has_aux=True)
    grads, entering = pullback((jnp.ones_like(loss), cotangent))
    total_grads, total_loss, total_count = total
    total_grads = _tree.accumulate(total_grads, grads)
    total = (total_grads, total_loss + loss.astype(total_loss.dtype), total_count + count)
    return total, entering, leaving


def _zero_total(params: Any) -> tuple[Any, jax.Array, jax.Array]:
    loss_sum = jnp.zeros((), jnp.result_type(float))
    return _tree.zero_sums(params), loss_sum, jnp.zeros((), jnp.int32)


def _slice(stream: Stream, at: jax.Array, num_steps: int) -> tuple[Any, Any, Any, Any]:
    """The steps at, …, at + num_steps − 1 of a stream's arrays."""
    return jax.tree.map(
        lambda leaf: lax.dynamic_slice_in_dim(leaf, at, num_steps, axis=0),
        (stream.xs, stream.targets, stream.resets, stream.mask),
    )
