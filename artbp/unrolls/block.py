"""One block of a segment, forward and backward: where the ARTBP recursion is run.

A block is as many steps as the buffers hold. `run_block` runs it forward and keeps what the way
back needs (`Segment.run`), then goes back through it chunk by chunk (`_backpropagate`): all steps
of a chunk are linearised and read out together, the recursion takes them one by one, and the
gradient of the parameters is taken for all of them together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls.checks import Cell
from artbp.unrolls.gate import scale
from artbp.unrolls.linearized import gradient_of_sums, zero_sums
from artbp.unrolls.readout import read_out
from artbp.unrolls.recurrence import Chunk, Recurrence
from artbp.unrolls.segment import Problem


@dataclasses.dataclass(frozen=True)
class Segment:
    """The steps start, …, start + length − 1 of a stream, and what runs them.

    Attributes:
      problem, params, initial_carry, stream: see `dynamic.segment_gradient`.
      recurrence: of `problem.cell` at `params`.
      start, length: int32 scalars, perhaps traced.
      chunk: how many steps are linearised at a time; the last chunk of a block is filled up with
        copies of a real step, which on average wastes half a chunk of that work.
      axis_names: the axes of enclosing vmaps, with one segment a row; () for a single segment.
    """

    problem: Problem
    params: Any
    initial_carry: Any
    stream: Stream
    recurrence: Recurrence
    start: jax.Array
    length: jax.Array
    chunk: int
    axis_names: tuple[Any, ...] = ()

    def longest(self, count: jax.Array) -> jax.Array:
        """The trip count that serves every row."""
        return lax.pmax(count, self.axis_names) if self.axis_names else count

    def keep(self, t: jax.Array, new: Any, old: Any) -> Any:
        """`new` on rows that step t belongs to. A single segment's loops end with it anyway."""
        return _tree.select(t < self.length, new, old) if self.axis_names else new

    def inputs(self, first: jax.Array, end: jax.Array) -> tuple[Any, Any]:
        """(xs, resets) of the steps first, …, first + chunk − 1, see `real_steps`."""
        steps = real_steps(first, end, self.chunk)
        return _tree.gather((self.stream.xs, self.stream.resets), self.start + steps)

    def run(self, carry: Any, first: Any, num_steps: Any, buffers: Any = None) -> tuple[Any, Any]:
        """Runs the cell for `num_steps` steps from step `first` on.

        Args:
          buffers: `Buffers`, to be filled from slot 0 on; None keeps nothing.

        Returns:
          (the carry that leaves, the buffers).
        """

        def run_chunk(n: Any, count: Any, loop: tuple[Any, Any]) -> tuple[Any, Any]:
            carry, buffers = loop
            begin = first + n * self.chunk
            xs, resets = self.inputs(begin, self.length)
            us = self.recurrence.project(xs)
            if buffers is not None:
                buffers = buffers._replace(entering=_tree.update(buffers.entering, carry, n))

            def run_step(j: jax.Array, loop: tuple[Any, Any]) -> tuple[Any, Any]:
                carry, buffers = loop
                entering = carry
                if resets is not None:
                    entering = _tree.select(resets[j], self.initial_carry, carry)
                new_carry, _, kept = self.recurrence.step(entering, _tree.index(us, j))
                if buffers is not None:
                    rows = _tree.update(buffers.kept, kept, n * self.chunk + j)
                    buffers = buffers._replace(kept=rows)
                return self.keep(begin + j, new_carry, carry), buffers

            return lax.fori_loop(0, count, run_step, (carry, buffers))

        return self.for_chunks(num_steps, run_chunk, (carry, buffers))

    def for_chunks(
        self, num_steps: Any, body: Callable[..., Any], loop: Any, reverse: bool = False
    ) -> Any:
        """loop = body(n, count, loop) for each chunk n of `num_steps` steps, of `count` steps each.

        `num_steps` may be traced; as a Python integer it is the size of a chunk, and all loops
        have static trip counts.
        """
        if isinstance(num_steps, int):
            assert num_steps == self.chunk, "a block of static length is one chunk"
            return body(0, num_steps, loop)
        num_chunks = (num_steps + self.chunk - 1) // self.chunk

        def nth(i: jax.Array, loop: Any) -> Any:
            n = num_chunks - 1 - i if reverse else i
            return body(n, jnp.minimum(self.chunk, num_steps - n * self.chunk), loop)

        return lax.fori_loop(0, num_chunks, nth, loop)


def real_steps(first: jax.Array, end: jax.Array, chunk: int) -> jax.Array:
    """The steps first, …, first + chunk − 1; for those that are not before `end`, the last that is.

    What is done for the latter has no effect. On an input that has been met before, a cell and a
    loss are as finite as they were there: 0 · NaN would be NaN.
    """
    return jnp.minimum(first + jnp.arange(chunk, dtype=jnp.int32), end - 1)


class Buffers(NamedTuple):
    """What the forward pass through a block leaves to the way back; never read before written.

    Attributes:
      kept: `[block_size, ...]`, what `Recurrence.step` keeps of each step.
      entering: `[chunks in a block, ...]`, the carry that enters each chunk.
    """

    kept: Any
    entering: Any


def make_buffers(kept: Any, carry: Any, block_size: int, chunk: int) -> Buffers:
    """Buffers for blocks of at most `block_size` steps, from examples of what they hold."""
    num_chunks = -(-block_size // chunk)
    return Buffers(_tree.repeat(kept, num_chunks * chunk), _tree.repeat(carry, num_chunks))


class BlockState(NamedTuple):
    """What the way back through a segment carries from block to block.

    Attributes:
      cell_sums: gradient through the cell so far, as `Recurrence.accumulate` sums it.
      readout_sums: gradient through the readout so far, like params, float32 or wider.
      cotangent: (∂F_{t+1}/∂s_t)ᵀ δ_{t+1} for the block's last step t, on the differentiable
        leaves of the carry; None elsewhere.
      loss_sum, num_losses: so far.
      buffers: of the block; None inside the loops that only read them.
      max_compensation, max_weight: of the gates so far.
    """

    cell_sums: Any
    readout_sums: Any
    cotangent: Any
    loss_sum: jax.Array
    num_losses: jax.Array
    buffers: Buffers | None
    max_compensation: jax.Array
    max_weight: jax.Array


def initial_state(cell: Cell, params: Any, carry: Any, buffers: Buffers | None) -> BlockState:
    """The state before the segment's last block: no gradient, and δ = 0 behind the boundary."""
    one = jnp.ones((), jnp.result_type(float))  # float64 where enabled: sums may be wider than y
    return BlockState(
        cell_sums=zero_sums(cell, params),
        readout_sums=_tree.zero_sums(params),
        cotangent=_tree.zeros_like(_tree.partition(carry)[0]),
        loss_sum=jnp.zeros_like(one),
        num_losses=jnp.zeros((), jnp.int32),
        buffers=buffers,
        max_compensation=one,
        max_weight=one,
    )


def gradient(cell: Cell, params: Any, state: BlockState) -> Any:
    """The gradient like params, when the segment's first block is done."""
    through_cell = gradient_of_sums(cell, params, state.cell_sums)
    total = _tree.accumulate(state.readout_sums, through_cell)
    return jax.tree.map(lambda leaf, x: leaf.astype(x.dtype), total, params)


def run_block(
    segment: Segment, carry: Any, offset: Any, num_steps: Any, state: BlockState
) -> tuple[Any, BlockState]:
    """Runs `num_steps` steps from step `offset` of the segment, forward and then backward.

    `num_steps` may be traced; see `Segment.for_chunks`.

    Returns:
      (the carry that leaves the block, the state for the block before it).
    """
    carry, buffers = segment.run(carry, offset, num_steps, state.buffers)
    return carry, _backpropagate(segment, offset, num_steps, buffers, state)


def _backpropagate(
    segment: Segment, offset: Any, num_steps: Any, buffers: Buffers, state: BlockState
) -> BlockState:
    """The ARTBP recursion, from the last step of a block to its first.

        δ_t = ∂ℓ_t/∂s_t + gate_t · (∂F_{t+1}/∂s_t)ᵀ δ_{t+1},    gate_t = 1/(1 − c_t)

    (arXiv 1705.08209), with the readout's part ∂ℓ_t/∂s_t entering through the cotangent of y_t.
    Within a segment X_t = 0, so this gate is (1 − X_t)/(1 − c_t); at its last step X_t = 1 and the
    gate is 0. What is carried from step to step is (∂F_{t+1}/∂s_t)ᵀ δ_{t+1}, so it starts at zero.
    """
    recurrence, size = segment.recurrence, segment.chunk
    end = jnp.minimum(segment.length, offset + num_steps)

    def linearize(n: Any) -> tuple[Chunk, Any, Any]:
        first = offset + n * size
        last = jnp.maximum(end - 1 - offset, 0)
        slots = n * size + jnp.arange(size, dtype=jnp.int32)

        def real(leaf: jax.Array) -> jax.Array:
            """As `real_steps`; a slice and a select are fused into what reads them."""
            of_chunk = lax.dynamic_slice_in_dim(leaf, n * size, size)
            return jnp.where(
                _tree.align(slots <= last, of_chunk), of_chunk, _tree.index(leaf, last)[None]
            )

        chunk = Chunk(
            _tree.index(buffers.entering, n),
            jax.tree.map(real, buffers.kept),
            *segment.inputs(first, end),
            segment.initial_carry,
        )
        return chunk, *recurrence.linearize(chunk)

    def pull_back(local: Any, y_cotangents: Any, cotangent: Any, j: Any) -> tuple[Any, Any]:
        return recurrence.pull_back(_tree.index(local, j), cotangent, _tree.index(y_cotangents, j))

    def chunk_backward(n: Any, count: Any, loop: tuple[BlockState, Any]) -> tuple[BlockState, Any]:
        state, deltas = loop
        first = offset + n * size
        chunk, ys, local = linearize(n)
        state, y_cotangents = _read_out(segment, first, end, ys, state)
        ages = first + jnp.arange(1, size + 1, dtype=jnp.int32)
        gates = jnp.asarray(segment.problem.compensation(ages), state.max_weight.dtype)

        def step_backward(k: jax.Array, loop: tuple[Any, Any]) -> tuple[Any, Any]:
            cotangent, deltas = loop
            j = count - 1 - k
            gated = jax.tree.map(lambda leaf: scale(leaf, gates[j]), cotangent)
            delta, entering = pull_back(local, y_cotangents, gated, j)
            if chunk.resets is not None:  # nothing flows on to the carry that a reset replaced
                entering = _tree.select(chunk.resets[j], _tree.zeros_like(entering), entering)
            delta = segment.keep(first + j, delta, _tree.zeros_like(delta))
            return segment.keep(first + j, entering, cotangent), _tree.update(deltas, delta, j)

        cotangent, deltas = lax.fori_loop(0, count, step_backward, (state.cotangent, deltas))
        within = (ages <= end) & (ages < segment.length)
        gates = jnp.where(within, gates, jnp.ones_like(gates))
        cell_sums = recurrence.accumulate(state.cell_sums, local, chunk.xs, deltas)
        state = state._replace(
            cell_sums=segment.keep(first, cell_sums, state.cell_sums),
            cotangent=cotangent,
            max_compensation=jnp.maximum(state.max_compensation, jnp.max(gates)),
            max_weight=state.max_weight * jnp.prod(gates),
        )
        return state, deltas

    # Only the first chunk to go, the last in time, can be short: its other deltas stay zero.
    def example_delta() -> Any:
        _, ys, local = linearize(0)
        return pull_back(local, _tree.partition(ys)[0], state.cotangent, 0)[0]

    deltas = _tree.repeat(jax.tree.map(_zeros, jax.eval_shape(example_delta)), size)
    # The buffers are read, never written, here: out of the loop's state, they are not copied.
    loop = (state._replace(buffers=None), deltas)
    final, _ = segment.for_chunks(num_steps, chunk_backward, loop, reverse=True)
    return final._replace(buffers=buffers)


def _read_out(
    segment: Segment, first: jax.Array, end: jax.Array, ys: Any, state: BlockState
) -> tuple[BlockState, Any]:
    """Adds up the losses of a chunk. Returns the state and the cotangents ∂ℓ/∂y.

    Readout gradients are not gated: ∂ℓ_t/∂θ and ∂ℓ_t/∂s_t enter with weight 1.
    """
    real = segment.start + real_steps(first, end, segment.chunk)
    valid = first + jnp.arange(segment.chunk, dtype=jnp.int32) < end
    read = read_out(segment.problem.loss_fn, segment.params, ys, segment.stream, real, valid)
    sums = _tree.accumulate(state.readout_sums, read.grads)
    state = state._replace(
        readout_sums=segment.keep(first, sums, state.readout_sums),
        loss_sum=state.loss_sum + read.loss_sum.astype(state.loss_sum.dtype),
        num_losses=state.num_losses + read.num_losses,
    )
    return state, read.y_cotangents


def _zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """Zeros like leaf, and sharded as leaf where axes are explicit."""
    return jnp.zeros(leaf.shape, leaf.dtype, out_sharding=leaf.sharding)
