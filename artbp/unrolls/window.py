"""Forward and backward passes over a window of fixed length, with loops of static length.

The buffers hold the residuals of several windows, each in its own slot, so the backward pass over
a window may come long after its forward pass.
"""

from functools import partial
from typing import Any

import jax
from jax import lax

from artbp.unrolls.chunk import (
    BackwardState,
    Residuals,
    Segment,
    chunk_backward,
    make_deltas,
    run,
)


def run_window(
    segment: Segment,
    carry: Any,
    num_steps: int,
    residuals: Residuals | None = None,
    first_chunk: jax.Array | int = 0,
) -> tuple[Any, Any]:
    """Runs the first `num_steps` steps of a segment.

    Args:
      num_steps: static. `segment.is_padded` must be True where the segment may be shorter.
      residuals: buffers for several windows; None keeps nothing.
      first_chunk: the chunk of the buffers at which this window begins.

    Returns:
      (the carry that leaves, the buffers).
    """
    size = segment.chunk_size
    full, rest = divmod(num_steps, size)
    if full:
        carry, residuals = run(segment, carry, 0, full * size, residuals, first_chunk=first_chunk)
    if rest:
        carry, residuals = run(
            segment, carry, full * size, rest, residuals, first_chunk=first_chunk + full
        )
    return carry, residuals


def window_backward(
    segment: Segment,
    residuals: Residuals,
    num_steps: int,
    first_chunk: jax.Array | int,
    state: BackwardState,
    *,
    reads_out: bool,
) -> BackwardState:
    """Runs the backward pass over a window; see `chunk.chunk_backward`."""
    size = segment.chunk_size
    full, rest = divmod(num_steps, size)
    loop = state, make_deltas(segment, residuals, 0, num_steps)
    if rest:
        of_rest = full * size, rest, 0, loop
        place = {"first_chunk": first_chunk + full, "reads_out": reads_out}
        loop = chunk_backward(segment, residuals, *of_rest, **place)
    if full:
        place = {"first_chunk": first_chunk, "reads_out": reads_out}
        one_chunk = partial(chunk_backward, segment, residuals, 0, full * size, **place)
        loop = lax.fori_loop(0, full, one_chunk, loop)
    return loop[0]
