"""The `dynamic` segment kernel: one compiled program for segments of every length.

The length of a segment is a traced integer. A forward loop writes the carry that enters each
step into a buffer of `block_size` carries; the readout losses of the block are taken in chunks;
then an explicit backward loop linearises the cell at each stored carry and applies the ARTBP
recursion. A segment longer than the buffer is run in blocks: the forward pass keeps the
carries at block starts, and the way back fills the buffer again block by block. There is no cap
on the length: a cap would be a boundary with c = 1 that nothing compensates.

Memory: 2 · block_size carries and block_size ys, whatever the length. Work: the forward pass twice
(once to record, once to linearise) and the backward pass once; each block but the last costs one
forward pass more. In a segment of more than block_size² steps block starts are kept for every
second, third, ... block only, which costs further forward steps, not memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls.block import BlockState, Segment, initial_state, run_block
from artbp.unrolls.segment import Problem, SegmentResult


class Scratch(NamedTuple):
    """Buffers of the kernel, `[block_size, ...]` like the carry; never read before written.

    Attributes:
      step_carries: the carries that enter the steps of one block.
      block_carries: the carries that enter the blocks of one segment.
    """

    step_carries: Any
    block_carries: Any


def make_scratch(carry: Any, block_size: int) -> Scratch:
    """Allocates the buffers for segments that start from carries like `carry`."""

    def buffer() -> Any:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (block_size, *x.shape)), carry)

    return Scratch(buffer(), buffer())


def segment_gradient(
    problem: Problem,
    params: Any,
    carry: Any,
    initial_carry: Any,
    scratch: Scratch,
    stream: Stream,
    start: jax.Array,
    length: jax.Array,
    *,
    block_size: int,
    axis_names: tuple[Any, ...] = (),
) -> SegmentResult:
    """Gradient of one segment: the steps start, …, start + length − 1 of `stream`.

    Args:
      problem: cell, loss function and gates. Danger: the caller has checked the cell
        (`checks.check_cell`).
      params, carry, initial_carry: the carry enters the segment; `initial_carry` enters at resets.
      scratch: from `make_scratch`, with the same block size.
      stream: the whole stream; the kernel reads the segment's steps only.
      start, length: int32 scalars, may be traced. Danger: 1 ≤ length and start + length ≤ T are
        the caller's to keep.
      block_size: steps whose carries are kept at a time.
      axis_names: axes of enclosing `jax.vmap`s with one segment a row. The rows then run in
        lockstep, in loops of one common length, with masks on the carry and the gradient sums, not
        on the buffers. `batching` sets this.
    """
    x_type = jax.eval_shape(lambda: _tree.index(stream.xs, 0))
    _, y_type = jax.eval_shape(problem.cell, params, carry, x_type)
    segment = Segment(problem, params, initial_carry, stream, start, length, axis_names)
    num_blocks = segment.longest((length + block_size - 1) // block_size)
    stride = (num_blocks + block_size - 1) // block_size  # blocks between two stored block carries

    # Forward to the last block, keeping the carries that enter every stride-th block.
    def forward_block(block: jax.Array, loop: tuple[Any, Any]) -> tuple[Any, Any]:
        carry, block_carries = loop
        block_carries = lax.cond(
            block % stride == 0,
            lambda buffers: _tree.update(buffers, carry, block // stride),
            lambda buffers: buffers,
            block_carries,
        )
        first = block * block_size
        return _advance(segment, carry, first, first + block_size), block_carries

    last_carry, block_carries = lax.fori_loop(
        0, num_blocks - 1, forward_block, (carry, scratch.block_carries)
    )

    # Back, block by block: run it once more from what was kept, then backpropagate through it.
    def backward_block(i: jax.Array, loop: tuple[Any, BlockState]) -> tuple[Any, BlockState]:
        final_carry, state = loop
        block = num_blocks - 1 - i
        offset = block * block_size
        is_last = i == 0  # the forward pass has just arrived there
        kept = _tree.index(block_carries, block // stride)
        entering = _advance(
            segment,
            _tree.select(is_last, last_carry, kept),
            jnp.where(is_last, offset, (block // stride) * stride * block_size),
            offset,
        )
        leaving, state = run_block(segment, entering, offset, block_size, state)
        return _tree.select(is_last, leaving, final_carry), state

    state = initial_state(segment, carry, y_type, scratch.step_carries, block_size)
    final_carry, state = lax.fori_loop(0, num_blocks, backward_block, (carry, state))
    return SegmentResult(
        grads=jax.tree.map(lambda g, x: g.astype(x.dtype), state.grads, params),
        loss_sum=state.loss_sum,
        num_losses=state.num_losses,
        carry=final_carry,
        scratch=Scratch(state.step_carries, block_carries),
        max_compensation=state.max_compensation,
        max_weight=state.max_weight,
    )


def _advance(segment: Segment, carry: Any, first: jax.Array, last: jax.Array) -> Any:
    """Runs the cell from step `first` to step `last` of the segment, keeping nothing."""

    def body(t: jax.Array, carry: Any) -> Any:
        return segment.keep(t, segment.step(segment.params, carry, t)[0], carry)

    return lax.fori_loop(first, last, body, carry)
