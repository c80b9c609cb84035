"""The `dynamic` segment kernel: one compiled program for segments of every length.

The length of a segment is a traced integer. A forward loop fills buffers with the residuals of up
to `block_size` steps; a backward loop goes through them chunk by chunk (`artbp.unrolls.chunk`). A
segment longer than the buffers is run in blocks: the forward pass keeps the carries at block
starts, and the backward pass fills the buffers again, block by block. The length has no cap: a cap
would be a boundary with c = 1, which nothing compensates.

Memory: the residuals of block_size steps and block_size carries, whatever the length. Work: that of
the cell's recurrence; every block but the last costs one more forward pass. In a segment of more
than block_size² steps only every second, third, ... block start is kept, which costs further
forward steps instead of memory.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls.autodiff_recurrence import recurrence_of, residuals_like
from artbp.unrolls.checks import Cell
from artbp.unrolls.chunk import (
    BackwardState,
    Residuals,
    Segment,
    chunk_backward,
    initial_state,
    make_deltas,
    make_residuals,
    num_chunks,
    run,
    segment_result,
)
from artbp.unrolls.functions import Functions, SegmentResult
from artbp.unrolls.recurrence import CHUNK


class Scratch(NamedTuple):
    """Buffers of the kernel; never read before they are written.

    Attributes:
      residuals: of one block.
      block_carries: `[block_size, ...]`, the carries that enter the blocks of one segment.
    """

    residuals: Residuals
    block_carries: Any


def make_scratch(cell: Cell, params: Any, carry: Any, block_size: int) -> Scratch:
    """Allocates the buffers for segments that start from carries like `carry`."""
    of_step = residuals_like(cell, params, carry)
    residuals = make_residuals(of_step, carry, block_size, min(CHUNK, block_size))
    return Scratch(residuals, block_carries=_tree.repeat(carry, block_size))


def check_scratch(cell: Cell, params: Any, carry: Any, scratch: Any, block_size: int) -> None:
    """Raises ValueError unless `scratch` is that of this cell, carry and block size."""
    of_type = lambda tree: jax.tree.map(lambda leaf: (jnp.shape(leaf), leaf.dtype), tree)  # noqa: E731
    expected = jax.eval_shape(partial(make_scratch, cell, block_size=block_size), params, carry)
    if of_type(scratch) != of_type(expected):
        raise ValueError(
            f"state.scratch does not belong to an estimator with block_size={block_size} and this "
            "cell and carry. Take it from this estimator's init, for instance for a state that was "
            "restored from a checkpoint without it: state._replace(scratch=init(...).scratch)."
        )


def segment_gradient(
    functions_of: Callable[[Any], Functions],
    block_size: int,
    constants: Any,
    params: Any,
    carry: Any,
    initial_carry: Any,
    scratch: Scratch,
    stream: Stream,
    start: jax.Array,
    length: jax.Array,
    *,
    axis_names: tuple[Any, ...] = (),
) -> SegmentResult:
    """Gradient of one segment: the steps start, …, start + length − 1 of `stream`.

    Args:
      functions_of, constants: `functions_of(constants)` are cell, loss function and compensation;
        see `closure.hoist_functions`. Danger: the caller has checked the cell
        (`first_step.check_step`).
      block_size: how many steps have their residuals kept at a time.
      params, carry, initial_carry: the carry enters the segment; `initial_carry` enters at resets.
      scratch: from `make_scratch`, with the same block size.
      stream: the whole stream; the kernel reads the segment's steps only.
      start, length: int32 scalars, may be traced. Danger: the caller ensures 1 ≤ length and
        start + length ≤ T.
      axis_names: axes of enclosing `jax.vmap`s with one segment a row. The rows then run in
        lockstep, in loops of one common length, with masks on the carry and the gradient sums, not
        on the buffers. `batching` sets this.
    """
    functions = functions_of(constants)
    segment = Segment(
        functions=functions,
        params=params,
        initial_carry=initial_carry,
        stream=stream,
        carry_like=carry,
        recurrence=recurrence_of(functions.cell, params, carry, _tree.index(stream.xs, 0)),
        start=start,
        length=length,
        chunk_size=min(CHUNK, block_size),
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
        return run(segment, carry, first, jnp.int32(block_size))[0], block_carries

    last_carry, block_carries = lax.fori_loop(
        0, num_blocks - 1, forward_block, (carry, scratch.block_carries)
    )

    # Backward, block by block: run the block once more from the carry kept before it, then go back.
    def backward_block(i: jax.Array, loop: tuple[Any, Residuals, BackwardState]) -> Any:
        final_carry, residuals, state = loop
        block = num_blocks - 1 - i
        offset = block * block_size
        is_last = i == 0  # the forward pass ended at its start
        kept = _tree.index(block_carries, block // stride)
        first = jnp.where(is_last, offset, (block // stride) * stride * block_size)
        entering, _ = run(segment, _tree.select(is_last, last_carry, kept), first, offset - first)
        num_steps = segment.longest(jnp.clip(length - offset, 0, block_size))
        leaving, residuals = run(segment, entering, offset, num_steps, residuals)
        deltas = make_deltas(segment, residuals, offset, num_steps)
        one_chunk = partial(chunk_backward, segment, residuals, offset, num_steps)
        count = num_chunks(num_steps, segment.chunk_size)
        state, _ = lax.fori_loop(0, count, one_chunk, (state, deltas))
        return _tree.select(is_last, leaving, final_carry), residuals, state

    loop = (carry, scratch.residuals, initial_state(segment))
    final_carry, residuals, state = lax.fori_loop(0, num_blocks, backward_block, loop)
    return segment_result(segment, state, final_carry, Scratch(residuals, block_carries))
