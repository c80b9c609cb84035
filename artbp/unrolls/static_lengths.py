"""The `exact` and `pow2` segment kernels: a segment as a chain of loops of static length.

With a static length, XLA compiles loops whose trip count it knows, and large products over exactly
the steps that exist; the price is one program per length. `exact` runs the whole segment as one
piece (up to `block_size` steps, then blocks), so each new length is a new program. `pow2` splits
the length into powers of two, so that all lengths share a few programs: forward through the chain
of pieces, then backward.

Both are driven from the host, because the host has to know the length. Lengths never depend on
data, so the host can know them ahead of the device.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls.autodiff_recurrence import recurrence_of, residuals_like
from artbp.unrolls.chunk import (
    BackwardState,
    Segment,
    chunk_backward,
    initial_state,
    make_deltas,
    make_residuals,
    run,
    segment_result,
)
from artbp.unrolls.first_step import check_step, warn_of_unused_params
from artbp.unrolls.functions import Functions, SegmentResult

# For how many piece lengths compiled programs are kept; the least recently used is dropped first.
# Two programs a length: forward with backward, and forward alone where another piece follows.
_CACHE_SIZE = 128


def exact_pieces(length: int, block_size: int) -> list[int]:
    """One piece, or blocks where the segment is longer than a block; the remainder comes last.

    >>> exact_pieces(7, 3)
    [3, 3, 1]
    """
    blocks, rest = divmod(length, block_size)
    return [block_size] * blocks + [rest] * (rest > 0)


def pow2_pieces(length: int, block_size: int) -> list[int]:
    """Powers of two no larger than `block_size`, smallest first, that sum to `length`.

    Smallest first, because only the last piece need not run its forward pass twice.

    >>> pow2_pieces(13, 8)
    [1, 4, 8]
    >>> pow2_pieces(13, 4)
    [1, 4, 4, 4]
    """
    largest = 1 << (block_size.bit_length() - 1)
    rest = length % largest
    small = [1 << bit for bit in range(rest.bit_length()) if rest >> bit & 1]
    return small + [largest] * (length // largest)


PIECES = {"exact": exact_pieces, "pow2": pow2_pieces}


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
    functions: Functions, split: Callable[[int, int], list[int]], block_size: int
) -> Callable[..., SegmentResult]:
    """Builds a host-driven kernel with the arguments of `dynamic.segment_gradient`.

    Args:
      split: `exact_pieces` or `pow2_pieces`.
      block_size: the longest piece, hence the most steps whose residuals are kept at a time.
    """

    @functools.lru_cache(maxsize=_CACHE_SIZE)
    def programs(num_steps: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return (
            jax.jit(functools.partial(_forward, functions, num_steps)),
            jax.jit(functools.partial(_backward, functions, num_steps), donate_argnums=1),
        )

    @jax.jit
    def begin(piece: _Piece) -> BackwardState:
        state = initial_state(_segment(functions, 1, piece))
        x, target = _tree.index((piece.stream.xs, piece.stream.targets), 0)
        warn_of_unused_params(*functions[:2], piece.params, piece.carry, x, target)
        return state

    end = jax.jit(lambda piece, *rest: segment_result(_segment(functions, 1, piece), *rest))

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

        state, final_carry = begin(piece), None
        for num_steps, piece in zip(reversed(sizes), reversed(pieces), strict=True):
            _, backward = programs(num_steps)
            state, leaving = backward(piece, state)
            final_carry = leaving if final_carry is None else final_carry
        return end(pieces[0], state, final_carry, scratch)

    return segment_gradient


def _forward(functions: Functions, num_steps: int, piece: _Piece) -> Any:
    """The carry after the piece."""
    return run(_segment(functions, num_steps, piece), piece.carry, piece.offset, num_steps)[0]


def _backward(
    functions: Functions, num_steps: int, piece: _Piece, state: BackwardState
) -> tuple[BackwardState, Any]:
    """Runs a piece forward and backward. Returns (the state for the piece before, carry after)."""
    segment, offset = _segment(functions, num_steps, piece), piece.offset
    of_step = residuals_like(functions.cell, piece.params, piece.carry)
    residuals = make_residuals(of_step, piece.carry, num_steps, chunk_size=num_steps)
    leaving, residuals = run(segment, piece.carry, offset, num_steps, residuals)
    deltas = make_deltas(segment, residuals, offset, num_steps)
    state, _ = chunk_backward(segment, residuals, offset, num_steps, 0, (state, deltas))
    return state, leaving


def _segment(functions: Functions, num_steps: int, piece: _Piece) -> Segment:
    """The segment of which the piece is one chunk."""
    x, target = _tree.index((piece.stream.xs, piece.stream.targets), 0)
    check_step(*functions[:2], piece.params, piece.carry, x, target)
    return Segment(
        functions=functions,
        params=piece.params,
        initial_carry=piece.initial_carry,
        stream=piece.stream,
        carry_like=piece.carry,
        recurrence=recurrence_of(functions.cell, piece.params, piece.carry, x),
        start=piece.start,
        length=piece.length,
        chunk_size=num_steps,
    )
