"""The `exact` and `pow2` segment kernels: a segment as a chain of loops of static length.

A static length lets XLA compile loops that know their trip count, and large products over exactly
the steps that there are; it costs one program per length. `exact` takes the whole segment as one
piece (up to `block_size` steps, then blocks), so each new length is a new program. `pow2` splits
the length into powers of two, so that all lengths share a few programs: forward through the chain,
then backward.

Both are driven from the host, because the host has to know the length; lengths never depend on
data, so it can know them ahead of the device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls.block import Segment, initial_state, join, make_buffers, run_block
from artbp.unrolls.checks import check_cell
from artbp.unrolls.linearized import gradient, kept_like, recurrence_of, zero_sums
from artbp.unrolls.segment import Problem, SegmentResult


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
            entering.append(
                forward(params, entering[-1], initial_carry, stream, np.int32(start), offset)
            )

        total = _zero_total(problem, params)
        cotangent = jax.tree.map(jnp.zeros_like, _tree.partition(carry)[0])
        final_carry = None
        for num_steps, offset in zip(reversed(pieces), reversed(offsets), strict=True):
            _, backward = programs(num_steps)
            total, cotangent, leaving = backward(
                params,
                entering.pop(),
                initial_carry,
                stream,
                np.int32(start),
                offset,
                cotangent,
                total=total,
            )
            final_carry = leaving if final_carry is None else final_carry
        gates = np.asarray(problem.compensation(np.arange(1, length)), np.float64)
        return SegmentResult(
            grads=join(gradient(problem.cell, params, total.cell_sums), total.readout_sums, params),
            loss_sum=total.loss_sum,
            num_losses=total.num_losses,
            carry=final_carry,
            scratch=scratch,
            max_compensation=jnp.asarray(gates.max(initial=1.0), total.loss_sum.dtype),
            max_weight=jnp.asarray(gates.prod(), total.loss_sum.dtype),
        )

    return segment_gradient


class _Total(NamedTuple):
    """Sums over the pieces behind the one at hand; see `block.BlockState`."""

    cell_sums: Any
    readout_sums: Any
    loss_sum: jax.Array
    num_losses: jax.Array


def _zero_total(problem: Problem, params: Any) -> _Total:
    loss_sum = jnp.zeros((), jnp.result_type(float))
    cell_sums = zero_sums(problem.cell, params)
    return _Total(cell_sums, _tree.zero_sums(params), loss_sum, jnp.zeros((), jnp.int32))


def _forward(
    problem: Problem,
    num_steps: int,
    params: Any,
    carry: Any,
    initial_carry: Any,
    stream: Stream,
    start: jax.Array,
    offset: jax.Array,
) -> Any:
    """The carry after `num_steps` steps from step `offset` of the segment that begins at start."""
    segment = _segment(problem, num_steps, params, carry, initial_carry, stream, start, offset)
    return segment.run(carry, offset, num_steps)[0]


def _backward(
    problem: Problem,
    num_steps: int,
    params: Any,
    carry: Any,
    initial_carry: Any,
    stream: Stream,
    start: jax.Array,
    offset: jax.Array,
    cotangent: Any,
    *,
    total: _Total,
) -> tuple[_Total, Any, Any]:
    """Backpropagates through the piece of `num_steps` steps that begins `offset` into its segment.

    Args:
      start: the stream's step at which the segment begins.
      cotangent: of the carry that leaves the piece, seen from the next piece (zero at the
        boundary); the gate of the piece's last step is applied here.

    Returns:
      (total with this piece, cotangent of the carry that enters, the carry that leaves).
    """
    segment = _segment(problem, num_steps, params, carry, initial_carry, stream, start, offset)
    buffers = make_buffers(kept_like(problem.cell, params, carry), carry, num_steps, num_steps)
    state = initial_state(segment, carry, buffers)
    state = state._replace(cotangent=cotangent, **total._asdict())
    leaving, state = run_block(segment, carry, offset, num_steps, state)
    total = _Total(*(getattr(state, name) for name in _Total._fields))
    return total, state.cotangent, leaving


def _segment(
    problem: Problem,
    num_steps: int,
    params: Any,
    carry: Any,
    initial_carry: Any,
    stream: Stream,
    start: jax.Array,
    offset: jax.Array,
) -> Segment:
    """The segment up to the end of the piece at hand, the piece being one chunk."""
    x = _tree.index(stream.xs, 0)
    check_cell(problem.cell, params, carry, x)
    return Segment(
        problem=problem,
        params=params,
        initial_carry=initial_carry,
        stream=stream,
        recurrence=recurrence_of(problem.cell, params, carry, x),
        start=start,
        length=offset + np.int32(num_steps),
        chunk=num_steps,
    )
