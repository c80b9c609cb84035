"""One block of a segment, forward and backward: where the ARTBP recursion is run.

A block is at most `block_size` steps whose carries fit the buffer. `run_block` runs it forward and
stores the carry that enters each step (`_record`), takes the readout losses of its steps
(`_read_out`), and goes back through it (`_backpropagate`).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls.gate import scale
from artbp.unrolls.readout import loss_and_count
from artbp.unrolls.segment import Problem

# Steps whose readout losses are computed together. The last chunk of a segment is filled up with
# copies of a real step, which on average wastes half a chunk of readout work.
_READOUT_CHUNK = 16


@dataclasses.dataclass(frozen=True)
class Segment:
    """The steps start, …, start + length − 1 of a stream, and what runs them.

    Attributes:
      problem, params, initial_carry, stream: see `dynamic.segment_gradient`.
      start, length: int32 scalars, perhaps traced.
      axis_names: the axes of enclosing vmaps, with one segment a row; () for a single segment.
    """

    problem: Problem
    params: Any
    initial_carry: Any
    stream: Stream
    start: jax.Array
    length: jax.Array
    axis_names: tuple[Any, ...]

    def step(self, params: Any, carry: Any, t: jax.Array) -> tuple[Any, Any]:
        """One step of the cell, t counted from the segment's start."""
        if self.stream.resets is not None:
            reset = _tree.index(self.stream.resets, self.start + t)
            carry = _tree.select(reset, self.initial_carry, carry)
        return self.problem.cell(params, carry, _tree.index(self.stream.xs, self.start + t))

    def longest(self, count: jax.Array) -> jax.Array:
        """The trip count that serves every row."""
        return lax.pmax(count, self.axis_names) if self.axis_names else count

    def keep(self, t: jax.Array, new: Any, old: Any) -> Any:
        """`new` on rows that step t belongs to. A single segment's loops end with it anyway."""
        return _tree.select(t < self.length, new, old) if self.axis_names else new


class BlockState(NamedTuple):
    """What the way back through a segment carries from block to block.

    Attributes:
      grads: gradient so far, float32 or wider.
      cotangent: (∂F_{t+1}/∂s_t)ᵀ δ_{t+1} for the block's last step t, on the differentiable
        leaves of the carry; None elsewhere.
      loss_sum, num_losses: so far.
      step_carries: buffer of the carries that enter the steps of a block.
      ys: buffer of a block's ys; then, where differentiable, of their cotangents ∂ℓ/∂y.
      max_compensation, max_weight: of the gates so far.
    """

    grads: Any
    cotangent: Any
    loss_sum: jax.Array
    num_losses: jax.Array
    step_carries: Any
    ys: Any
    max_compensation: jax.Array
    max_weight: jax.Array


def initial_state(
    segment: Segment, carry: Any, y_type: Any, step_carries: Any, block_size: int
) -> BlockState:
    """The state before the segment's last block: no gradient, and δ = 0 behind the boundary."""
    one = jnp.ones((), jnp.result_type(float))  # float64 where enabled: sums may be wider than y
    chunk = _chunk(block_size)
    padded = -(-block_size // chunk) * chunk
    return BlockState(
        grads=_tree.zero_sums(segment.params),
        cotangent=jax.tree.map(jnp.zeros_like, _tree.partition(carry)[0]),
        loss_sum=jnp.zeros_like(one),
        num_losses=jnp.zeros((), jnp.int32),
        step_carries=step_carries,
        ys=jax.tree.map(lambda y: _zeros(padded, y), y_type),
        max_compensation=one,
        max_weight=one,
    )


def run_block(
    segment: Segment, carry: Any, offset: jax.Array, block_size: int, state: BlockState
) -> tuple[Any, BlockState]:
    """Runs the block that begins `offset` steps into the segment, forward and then backward.

    Returns:
      (the carry that leaves the block, the state for the block before it).
    """
    num_steps = segment.longest(jnp.clip(segment.length - offset, 0, block_size))
    carry, state = _record(segment, carry, offset, num_steps, state)
    state = _read_out(segment, offset, num_steps, _chunk(block_size), state)
    return carry, _backpropagate(segment, offset, num_steps, state)


def _record(
    segment: Segment, carry: Any, offset: jax.Array, num_steps: jax.Array, state: BlockState
) -> tuple[Any, BlockState]:
    """Runs the steps of a block; stores the carry that enters each and the y that it returns."""

    def body(i: jax.Array, loop: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        carry, step_carries, ys = loop
        new_carry, y = segment.step(segment.params, carry, offset + i)
        step_carries = _tree.update(step_carries, carry, i)
        return segment.keep(offset + i, new_carry, carry), step_carries, _tree.update(ys, y, i)

    loop = (carry, state.step_carries, state.ys)
    carry, step_carries, ys = lax.fori_loop(0, num_steps, body, loop)
    return carry, state._replace(step_carries=step_carries, ys=ys)


def _read_out(
    segment: Segment, offset: jax.Array, num_steps: jax.Array, chunk: int, state: BlockState
) -> BlockState:
    """Takes the losses of a block; replaces its ys by their cotangents ∂ℓ/∂y.

    Readout gradients are not gated: ∂ℓ_t/∂θ and ∂ℓ_t/∂s_t enter with weight 1.
    """
    stream, length = segment.stream, segment.length

    def body(j: jax.Array, state: BlockState) -> BlockState:
        slots = j * chunk + jnp.arange(chunk, dtype=jnp.int32)
        valid = offset + slots < length
        # Slots beyond the segment repeat a real step: a loss that is finite on real input stays so.
        real = jnp.clip(slots, 0, jnp.maximum(jnp.minimum(length - offset, num_steps) - 1, 0))
        at = segment.start + jnp.minimum(offset + real, length - 1)
        targets = _gather(stream.targets, at)
        if stream.mask is not None:
            mask = _gather(stream.mask, at).astype(bool)
            valid = mask & _tree.align(valid, mask)
        float_ys, other_ys = _tree.partition(_gather(state.ys, real))

        def loss(params: Any, float_ys: Any) -> tuple[jax.Array, jax.Array]:
            ys = _tree.combine(float_ys, other_ys)
            return loss_and_count(segment.problem.loss_fn, params, ys, targets, valid)

        (loss_sum, count), (grads, cotangents) = jax.value_and_grad(loss, (0, 1), has_aux=True)(
            segment.params, float_ys
        )
        return state._replace(
            grads=segment.keep(offset, _tree.accumulate(state.grads, grads), state.grads),
            loss_sum=state.loss_sum + loss_sum.astype(state.loss_sum.dtype),
            num_losses=state.num_losses + count,
            ys=jax.tree.map(
                lambda buffer, new: lax.dynamic_update_slice_in_dim(buffer, new, j * chunk, 0),
                state.ys,
                _tree.combine(cotangents, other_ys),
            ),
        )

    return lax.fori_loop(0, (num_steps + chunk - 1) // chunk, body, state)


def _backpropagate(
    segment: Segment, offset: jax.Array, num_steps: jax.Array, state: BlockState
) -> BlockState:
    """The ARTBP recursion, from the last step of a block to its first.

        δ_t = ∂ℓ_t/∂s_t + gate_t · (∂F_{t+1}/∂s_t)ᵀ δ_{t+1},    gate_t = 1/(1 − c_t)

    (arXiv 1705.08209), with the readout's part ∂ℓ_t/∂s_t entering through the cotangent of y_t.
    Within a segment X_t = 0, so this gate is (1 − X_t)/(1 − c_t); at its last step X_t = 1 and the
    gate is 0. What is carried from step to step is (∂F_{t+1}/∂s_t)ᵀ δ_{t+1}, so it starts at zero.
    """

    def body(j: jax.Array, state: BlockState) -> BlockState:
        i = num_steps - 1 - j
        t = offset + i
        gate = jnp.asarray(segment.problem.compensation(t + 1), state.max_weight.dtype)
        carry, carry_rest = _tree.partition(_tree.index(state.step_carries, i))

        def differentiable_step(params: Any, carry: Any) -> tuple[Any, Any]:
            new_carry, y = segment.step(params, _tree.combine(carry, carry_rest), t)
            return _tree.partition(new_carry)[0], _tree.partition(y)[0]

        _, pullback = jax.vjp(differentiable_step, segment.params, carry)
        gated = jax.tree.map(lambda leaf: scale(leaf, gate), state.cotangent)
        y_cotangent = _tree.partition(_tree.index(state.ys, i))[0]
        grads, cotangent = pullback((gated, y_cotangent))
        gate_used = jnp.where(t < segment.length - 1, gate, jnp.ones_like(gate))
        return state._replace(
            grads=segment.keep(t, _tree.accumulate(state.grads, grads), state.grads),
            cotangent=segment.keep(t, cotangent, state.cotangent),
            max_compensation=jnp.maximum(state.max_compensation, gate_used),
            max_weight=state.max_weight * gate_used,
        )

    return lax.fori_loop(0, num_steps, body, state)


def _chunk(block_size: int) -> int:
    return min(_READOUT_CHUNK, block_size)


def _gather(tree: Any, steps: jax.Array) -> Any:
    """`leaf[steps]` for every leaf; the steps are in range."""
    return jax.tree.map(lambda leaf: leaf.at[steps].get(mode="promise_in_bounds"), tree)


def _zeros(num_steps: int, y: jax.ShapeDtypeStruct) -> jax.Array:
    """Zeros `[num_steps, ...]` like y, and sharded as y where axes are explicit."""
    one = jnp.zeros(y.shape, y.dtype, out_sharding=y.sharding)
    return jnp.broadcast_to(one, (num_steps, *y.shape))
