"""The `dynamic` segment kernel: one compiled program for segments of every length.

The length of a segment is a traced integer. A forward loop writes what the way back needs of each
step into buffers for `block_size` steps; then an explicit backward loop applies the ARTBP
recursion, chunk by chunk (`block`). A segment longer than the buffers is run in blocks: the forward
pass keeps the carries at block starts, and the way back fills the buffers again block by block.
There is no cap on the length: a cap would be a boundary with c = 1 that nothing compensates.

Memory: block_size times what a step keeps and block_size carries, whatever the length. Work: that
of the cell's recurrence; each block but the last costs one forward pass more. In a segment of more
than block_size² steps block starts are kept for every second, third, ... block only, which costs
further forward steps, not memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls.block import (
    BlockState,
    Buffers,
    Segment,
    gradient,
    initial_state,
    make_buffers,
    run_block,
)
from artbp.unrolls.checks import Cell
from artbp.unrolls.linearized import kept_like, recurrence_of
from artbp.unrolls.recurrence import CHUNK
from artbp.unrolls.segment import Problem, SegmentResult


class Scratch(NamedTuple):
    """Buffers of the kernel; never read before written.

    Attributes:
      buffers: of one block.
      block_carries: `[block_size, ...]`, the carries that enter the blocks of one segment.
    """

    buffers: Buffers
    block_carries: Any


def make_scratch(cell: Cell, params: Any, carry: Any, block_size: int) -> Scratch:
    """Allocates the buffers for segments that start from carries like `carry`."""
    chunk = min(CHUNK, block_size)
    buffers = make_buffers(kept_like(cell, params, carry), carry, block_size, chunk)
    return Scratch(buffers, block_carries=_tree.repeat(carry, block_size))


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
      block_size: how many steps are kept at a time.
      axis_names: axes of enclosing `jax.vmap`s with one segment a row. The rows then run in
        lockstep, in loops of one common length, with masks on the carry and the gradient sums, not
        on the buffers. `batching` sets this.
    """
    segment = Segment(
        problem=problem,
        params=params,
        initial_carry=initial_carry,
        stream=stream,
        recurrence=recurrence_of(problem.cell, params, carry, _tree.index(stream.xs, 0)),
        start=start,
        length=length,
        chunk=min(CHUNK, block_size),
        axis_names=axis_names,
    )
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
        return segment.run(carry, first, jnp.int32(block_size))[0], block_carries

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
        first = jnp.where(is_last, offset, (block // stride) * stride * block_size)
        entering, _ = segment.run(_tree.select(is_last, last_carry, kept), first, offset - first)
        num_steps = segment.longest(jnp.clip(length - offset, 0, block_size))
        leaving, state = run_block(segment, entering, offset, num_steps, state)
        return _tree.select(is_last, leaving, final_carry), state

    state = initial_state(problem.cell, params, carry, scratch.buffers)
    final_carry, state = lax.fori_loop(0, num_blocks, backward_block, (carry, state))
    return SegmentResult(
        grads=gradient(problem.cell, params, state),
        loss_sum=state.loss_sum,
        num_losses=state.num_losses,
        carry=final_carry,
        scratch=Scratch(state.buffers, block_carries),
        max_compensation=state.max_compensation,
        max_weight=state.max_weight,
    )
