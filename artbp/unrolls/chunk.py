"""Forward and backward passes over chunks of consecutive steps of one segment.

The forward pass (`run`) keeps residuals. The backward pass over a chunk (`chunk_backward`)
linearises all its steps together, takes their losses together, runs the recursion
(`artbp.unrolls.recursion`) step by step, and adds up the gradient of the parameters for all steps
together. The kernels put chunks together: `dynamic` many short ones, `window` a fixed number of
short ones, `static_lengths` one long one.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls import recursion
from artbp.unrolls.functions import Functions, SegmentResult
from artbp.unrolls.readout import Counted, nothing_counted, read_out
from artbp.unrolls.recurrence import Chunk, Recurrence


@dataclasses.dataclass(frozen=True)
class Segment:
    """The steps start, …, start + length − 1 of a stream, and what runs them.

    Attributes:
      functions, params, initial_carry, stream: see `dynamic.segment_gradient`.
      carry_like: a carry, of which the shapes and dtypes matter.
      recurrence: of `functions.cell` at `params`.
      start, length: int32 scalars, perhaps traced.
      chunk_size: steps that are linearised at a time. The last chunk of a block is filled up with
        copies of a real step; on average half a chunk of that work is wasted.
      axis_names: the axes of enclosing vmaps, each with one segment a row; () for one segment.
      is_padded: whether loops of static length may go beyond the segment's last step. The carry
        then stays as it is there: a cell that runs on could overflow, and 0 · ∞ is NaN.
    """

    functions: Functions
    params: Any
    initial_carry: Any
    stream: Stream
    carry_like: Any
    recurrence: Recurrence
    start: jax.Array
    length: jax.Array
    chunk_size: int
    axis_names: tuple[Any, ...] = ()
    is_padded: bool = False

    @property
    def is_masked(self) -> bool:
        """Whether loops run over steps that the segment does not have."""
        return self.is_padded or bool(self.axis_names)

    def longest(self, count: jax.Array) -> jax.Array:
        """The largest count among the rows of the enclosing vmaps: a trip count for all of them."""
        return lax.pmax(count, self.axis_names) if self.axis_names else count

    def keep(self, t: jax.Array, new: Any, old: Any) -> Any:
        """`new` if the segment has a step t, else `old`; without masks it has every step t."""
        return _tree.select(t < self.length, new, old) if self.is_masked else new

    def inputs(self, first: jax.Array, end: jax.Array) -> tuple[Any, Any]:
        """(xs, resets) of the steps first, …, first + chunk_size − 1, see `clamped_steps`."""
        steps = clamped_steps(first, end, self.chunk_size)
        return _tree.gather((self.stream.xs, self.stream.resets), self.start + steps)


class Residuals(NamedTuple):
    """What the forward pass through a block keeps for the backward pass.

    Attributes:
      steps: `[block_size, ...]`, the residuals of each step (`Recurrence.step`).
      entering: `[chunks in a block, ...]`, the carry that enters each chunk.
    """

    steps: Any
    entering: Any


class BackwardState(NamedTuple):
    """The loop state of the backward pass through a segment.

    Attributes:
      cell_sums: gradient through the cell so far, as `Recurrence.accumulate` sums it.
      readout_sums: gradient through the readout so far, like params, float32 or wider.
      flow: (∂F_{t+1}/∂s_t)ᵀ δ_{t+1} for the step t that comes next, on the differentiable leaves of
        the carry; None elsewhere.
      loss_sum, counted: so far.
      max_compensation, max_weight: of the gates so far.
    """

    cell_sums: Any
    readout_sums: Any
    flow: Any
    loss_sum: jax.Array
    counted: Counted
    max_compensation: jax.Array
    max_weight: jax.Array


def clamped_steps(first: jax.Array, end: jax.Array, count: int) -> jax.Array:
    """The steps first, …, first + count − 1, clamped to end − 1.

    Padding repeats a real input, on which the cell and the loss have already been finite. Its
    results are masked, and a mask does not remove NaN: 0 · NaN is NaN.
    """
    return jnp.minimum(first + jnp.arange(count, dtype=jnp.int32), end - 1)


def make_residuals(of_step: Any, carry: Any, block_size: int, chunk_size: int) -> Residuals:
    """Buffers for blocks of at most `block_size` steps, from examples of what they hold."""
    count = num_chunks(block_size, chunk_size)
    return Residuals(_tree.repeat(of_step, count * chunk_size), _tree.repeat(carry, count))


def initial_state(segment: Segment) -> BackwardState:
    """The state behind the segment's last step: no gradient, and no flow across the boundary."""
    cell, loss_fn = segment.functions.cell, segment.functions.loss_fn
    of_step = segment.params, segment.carry_like, segment.stream
    one = jnp.ones((), jnp.result_type(float))  # float64 where enabled: sums may be wider than y
    counted = nothing_counted(cell, loss_fn, *of_step)
    return BackwardState(
        cell_sums=segment.recurrence.zero_sums(),
        readout_sums=_tree.zero_sums(segment.params),
        flow=_tree.zeros_like(_tree.partition(segment.carry_like)[0]),
        loss_sum=jnp.zeros_like(counted.num_losses, dtype=one.dtype),
        counted=counted,
        max_compensation=one,
        max_weight=one,
    )


def segment_result(
    segment: Segment, state: BackwardState, carry: Any, scratch: Any
) -> SegmentResult:
    """The result, when the backward pass has come to the segment's first step."""
    through_cell = segment.recurrence.gradient(state.cell_sums)
    return SegmentResult(
        grads=_tree.accumulate(state.readout_sums, through_cell),
        loss_sum=state.loss_sum,
        counted=state.counted,
        carry=carry,
        scratch=scratch,
        max_compensation=state.max_compensation,
        max_weight=state.max_weight,
    )


def run(
    segment: Segment,
    carry: Any,
    first: Any,
    num_steps: Any,
    residuals: Residuals | None = None,
    *,
    first_chunk: Any = 0,
) -> tuple[Any, Any]:
    """Runs the cell for `num_steps` steps from step `first` of the segment on.

    Args:
      num_steps: a traced integer; or a Python integer, at most the size of a chunk or a multiple of
        it, and all loops then have static trip counts.
      residuals: buffers to be filled; None keeps nothing.
      first_chunk: the chunk of the buffers that the first of these steps begins.

    Returns:
      (the carry that leaves, the buffers).
    """
    size = segment.chunk_size

    def run_chunk(n: Any, loop: tuple[Any, Any]) -> tuple[Any, Any]:
        carry, residuals = loop
        begin = first + n * size
        xs, resets = segment.inputs(begin, segment.length)
        us = segment.recurrence.project(xs)
        if residuals is not None:
            entering = _tree.update(residuals.entering, carry, first_chunk + n)
            residuals = residuals._replace(entering=entering)

        def run_step(j: jax.Array, loop: tuple[Any, Any]) -> tuple[Any, Any]:
            carry, residuals = loop
            entering = carry
            if resets is not None:
                entering = _tree.replace(resets[j], segment.initial_carry, carry)
            new_carry, _, of_step = segment.recurrence.step(entering, _tree.index(us, j))
            if residuals is not None:
                steps = _tree.update(residuals.steps, of_step, (first_chunk + n) * size + j)
                residuals = residuals._replace(steps=steps)
            return segment.keep(begin + j, new_carry, carry), residuals

        return lax.fori_loop(0, _chunk_count(num_steps, n, size), run_step, (carry, residuals))

    loop = (carry, residuals)
    if isinstance(num_steps, int) and num_steps <= size:
        return run_chunk(0, loop)
    return lax.fori_loop(0, num_chunks(num_steps, size), run_chunk, loop)


def chunk_backward(
    segment: Segment,
    residuals: Residuals,
    offset: Any,
    num_steps: Any,
    i: Any,
    loop: tuple[BackwardState, Any],
    *,
    first_chunk: Any = 0,
    reads_out: bool = True,
) -> tuple[BackwardState, Any]:
    """The backward pass over the i-th chunk, counted from the end of a block.

    Args:
      residuals: from `run` over the block. Its params need not be those of `segment`: the local
        derivatives are those of the residuals, and the products are with the params of `segment`.
      offset: the segment's step at which the block begins.
      num_steps, first_chunk: of the block, as for `run`.
      loop: the state behind the chunk, and a buffer for `chunk_size` deltas, see `make_deltas`.
      reads_out: False for steps whose losses do not count.

    Returns:
      The same for the chunk before it.
    """
    state, deltas = loop
    size, recurrence = segment.chunk_size, segment.recurrence
    n = num_chunks(num_steps, size) - 1 - i
    first, end = offset + n * size, _end(segment, offset, num_steps)
    chunk, ys, local = _linearize(segment, residuals, offset, end, first_chunk, n)
    if reads_out:
        state, y_cotangents = _read_out(segment, first, end, ys, state)
    else:
        y_cotangents = _tree.zeros_like(_tree.partition(ys)[0])
    gates, state = _gates(segment, first, end, state)

    def pull_back(j: Any, flow: Any) -> tuple[Any, Any]:
        return recurrence.pull_back(_tree.index(local, j), flow, _tree.index(y_cotangents, j))

    taken = None
    if segment.is_masked:
        taken = first + jnp.arange(size, dtype=jnp.int32) < segment.length
    flow, deltas = recursion.backpropagate(
        pull_back,
        recursion.store,
        state.flow,
        deltas,
        count=_chunk_count(num_steps, n, size),
        gates=gates,
        resets=chunk.resets,
        initial_carry=segment.initial_carry,
        taken=taken,
    )
    cell_sums = recurrence.accumulate(state.cell_sums, local, chunk.xs, deltas)
    cell_sums = segment.keep(first, cell_sums, state.cell_sums)
    return state._replace(cell_sums=cell_sums, flow=flow), deltas


def make_deltas(segment: Segment, residuals: Residuals, offset: Any, num_steps: Any) -> Any:
    """A buffer for the deltas of a chunk, zero.

    Only the final chunk of a block can be partial. It is processed first, so the deltas of its
    padding stay zero.
    """

    def example() -> Any:
        end = _end(segment, offset, num_steps)
        _, ys, local = _linearize(segment, residuals, offset, end, 0, 0)
        flow = _tree.zeros_like(_tree.partition(segment.carry_like)[0])
        y_cotangent = _tree.index(_tree.partition(ys)[0], 0)
        return segment.recurrence.pull_back(_tree.index(local, 0), flow, y_cotangent)[0]

    return _tree.repeat(jax.tree.map(_tree.zeros, jax.eval_shape(example)), segment.chunk_size)


def num_chunks(num_steps: Any, chunk_size: int) -> Any:
    """⌈num_steps / chunk_size⌉."""
    return (num_steps + chunk_size - 1) // chunk_size


def _chunk_count(num_steps: Any, n: Any, chunk_size: int) -> Any:
    """The number of steps of chunk n; a Python integer where `num_steps` is, see `run`."""
    if not isinstance(num_steps, int):
        return jnp.minimum(chunk_size, num_steps - n * chunk_size)
    assert num_steps <= chunk_size or num_steps % chunk_size == 0
    return min(num_steps, chunk_size)


def _end(segment: Segment, offset: Any, num_steps: Any) -> jax.Array:
    """The segment's step at which the block ends."""
    return jnp.minimum(segment.length, offset + num_steps)


def _linearize(
    segment: Segment, residuals: Residuals, offset: Any, end: jax.Array, first_chunk: Any, n: Any
) -> tuple[Chunk, Any, Any]:
    """(chunk n of a block, its ys, its local derivatives)."""
    size = segment.chunk_size
    last = jnp.maximum(end - 1 - offset, 0)
    slots = n * size + jnp.arange(size, dtype=jnp.int32)

    def clamped(leaf: jax.Array) -> jax.Array:
        """As `clamped_steps`. XLA fuses a slice and a select into the operation that reads them."""
        begin = first_chunk * size
        of_chunk = lax.dynamic_slice_in_dim(leaf, begin + n * size, size)
        is_real = _tree.align(slots <= last, of_chunk)
        return jnp.where(is_real, of_chunk, _tree.index(leaf, begin + last)[None])

    chunk = Chunk(
        _tree.index(residuals.entering, first_chunk + n),
        jax.tree.map(clamped, residuals.steps),
        *segment.inputs(offset + n * size, end),
        segment.initial_carry,
    )
    return chunk, *segment.recurrence.linearize(chunk)


def _read_out(
    segment: Segment, first: jax.Array, end: jax.Array, ys: Any, state: BackwardState
) -> tuple[BackwardState, Any]:
    """Adds up the losses of a chunk. Returns the state and the cotangents ∂ℓ/∂y.

    Readout gradients are not gated: ∂ℓ_t/∂θ and ∂ℓ_t/∂s_t enter with weight 1.
    """
    steps = segment.start + clamped_steps(first, end, segment.chunk_size)
    valid = first + jnp.arange(segment.chunk_size, dtype=jnp.int32) < end
    loss_fn = segment.functions.loss_fn
    read = read_out(loss_fn, segment.params, ys, segment.stream, steps, valid)
    sums = _tree.accumulate(state.readout_sums, read.grads)
    state = state._replace(
        readout_sums=segment.keep(first, sums, state.readout_sums),
        loss_sum=state.loss_sum + read.loss_sum.astype(state.loss_sum.dtype),
        counted=_tree.accumulate(state.counted, read.counted),
    )
    return state, read.y_cotangents


def _gates(
    segment: Segment, first: jax.Array, end: jax.Array, state: BackwardState
) -> tuple[jax.Array | None, BackwardState]:
    """(the gates of a chunk, the state with their maximum and product).

    Within a segment X_t = 0, so the gate is 1/(1 − c_t). Behind the last step X_t = 1 and the gate
    is 0: there the flow is zero already.
    """
    compensation = segment.functions.compensation
    if compensation is None:
        return None, state
    ages = first + jnp.arange(1, segment.chunk_size + 1, dtype=jnp.int32)
    gates = jnp.asarray(compensation(ages), state.max_weight.dtype)
    used = jnp.where((ages <= end) & (ages < segment.length), gates, jnp.ones_like(gates))
    state = state._replace(
        max_compensation=jnp.maximum(state.max_compensation, jnp.max(used)),
        max_weight=state.max_weight * jnp.prod(used),
    )
    return gates, state
