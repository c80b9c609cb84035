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
import numpy as np

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls.block import (
    BlockState,
    Segment,
    gradient,
    initial_state,
    make_buffers,
    run_block,
)
from artbp.unrolls.checks import check_cell
from artbp.unrolls.linearized import kept_like, recurrence_of
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


class _Piece(NamedTuple):
    """A run of steps of one segment; the arguments of `dynamic.segment_gradient` at its start.

    Attributes:
      start, length: int32, the stream's step at which the segment begins, and its steps.
      offset: int32, the segment's step at which the piece begins.
    """

    params: Any
    carry: Any
    initial_carry: Any
    stream: Stream
    start: Any
    length: Any
    offset: Any


def segment_kernel(
    problem: Problem, split: Callable[[int, int], list[int]], block_size: int, cache_size: int
) -> Callable[..., SegmentResult]:
    """Builds a host-driven kernel with the arguments of `dynamic.segment_gradient`.

    Args:
      problem: cell, loss function and gates.
      split: `exact_pieces` or `pow2_pieces`.
      block_size: the longest piece, hence the most steps whose residuals are kept at a time.
      cache_size: how many piece lengths keep their compiled programs; the least recently used
        goes first. Two programs a length: forward with backward, and forward alone where another
        piece follows. Two small ones that begin and end the sums serve every length.
    """

    @functools.lru_cache(maxsize=cache_size)
    def programs(num_steps: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return (
            jax.jit(functools.partial(_forward, problem, num_steps)),
            jax.jit(functools.partial(_backward, problem, num_steps), donate_argnums=1),
        )

    begin = jax.jit(functools.partial(initial_state, problem.cell, buffers=None))
    end = jax.jit(functools.partial(gradient, problem.cell))

    def segment_gradient(
        params: Any,
        carry: Any,
        initial_carry: Any,
        scratch: Any,
        stream: Stream,
        start: int,
        length: int,
    ) -> SegmentResult:
        sizes = split(length, block_size)
        offsets = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
        of_segment = (np.int32(start), np.int32(length))
        piece = _Piece(params, carry, initial_carry, stream, *of_segment, offsets[0])
        pieces = [piece]
        for num_steps, offset in zip(sizes[:-1], offsets[1:], strict=True):
            forward, _ = programs(num_steps)
            piece = piece._replace(carry=forward(piece), offset=offset)
            pieces.append(piece)

        state, final_carry = begin(params, carry), None
        for num_steps, piece in zip(reversed(sizes), reversed(pieces), strict=True):
            _, backward = programs(num_steps)
            state, leaving = backward(piece, state)
            final_carry = leaving if final_carry is None else final_carry
        return SegmentResult(
            grads=end(params, state),
            loss_sum=state.loss_sum,
            num_losses=state.num_losses,
            carry=final_carry,
            scratch=scratch,
            max_compensation=state.max_compensation,
            max_weight=state.max_weight,
        )

    return segment_gradient


def _forward(problem: Problem, num_steps: int, piece: _Piece) -> Any:
    """The carry after the piece."""
    return _segment(problem, num_steps, piece).run(piece.carry, piece.offset, num_steps)[0]


def _backward(
    problem: Problem, num_steps: int, piece: _Piece, state: BlockState
) -> tuple[BlockState, Any]:
    """Backpropagates through a piece; the gate of its last step is applied here.

    Returns:
      (the state for the piece before it, the carry that leaves).
    """
    kept = kept_like(problem.cell, piece.params, piece.carry)
    state = state._replace(buffers=make_buffers(kept, piece.carry, num_steps, chunk=num_steps))
    segment = _segment(problem, num_steps, piece)
    leaving, state = run_block(segment, piece.carry, piece.offset, num_steps, state)
    return state._replace(buffers=None), leaving


def _segment(problem: Problem, num_steps: int, piece: _Piece) -> Segment:
    """The segment of which the piece is one chunk."""
    x = _tree.index(piece.stream.xs, 0)
    check_cell(problem.cell, piece.params, piece.carry, x)
    return Segment(
        problem=problem,
        params=piece.params,
        initial_carry=piece.initial_carry,
        stream=piece.stream,
        recurrence=recurrence_of(problem.cell, piece.params, piece.carry, x),
        start=piece.start,
        length=piece.length,
        chunk=num_steps,
    )
