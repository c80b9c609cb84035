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

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls.checks import check_cell
from artbp.unrolls.gate import scale
from artbp.unrolls.readout import loss_and_count
from artbp.unrolls.segment import Problem, SegmentResult

# Steps whose readout losses are computed together. The last chunk of a segment is filled up with
# copies of a real step, which on average wastes half a chunk of readout work.
_READOUT_CHUNK = 16


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
      problem: cell, loss function and gates.
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
    y_type = check_cell(
        problem.cell,
        params,
        carry,
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), stream.xs),
    )

    chunk = min(_READOUT_CHUNK, block_size)

    def longest(count: jax.Array) -> jax.Array:
        """The trip count that serves every row."""
        return lax.pmax(count, axis_names) if axis_names else count

    def keep(active: jax.Array, new: Any, old: Any) -> Any:
        """`new` on rows that are still running. Without rows, loops end with their segment."""
        return _tree.select(active, new, old) if axis_names else new

    def step(params: Any, carry: Any, t: jax.Array) -> tuple[Any, Any]:
        """One step of the cell, t counted from the segment's start."""
        if stream.resets is not None:
            reset = _tree.index(stream.resets, start + t)
            carry = _tree.select(reset, initial_carry, carry)
        return problem.cell(params, carry, _tree.index(stream.xs, start + t))

    def advance(carry: Any, first: jax.Array, last: jax.Array) -> Any:
        """Runs the cell from step `first` to step `last`, keeping nothing on the way."""

        def body(t: jax.Array, carry: Any) -> Any:
            return keep(t < length, step(params, carry, t)[0], carry)

        return lax.fori_loop(first, last, body, carry)

    def keep_block_starts(block: jax.Array, state: tuple[Any, Any]) -> tuple[Any, Any]:
        carry, block_carries = state
        block_carries = lax.cond(
            block % stride == 0,
            lambda buffers: _tree.update(buffers, carry, block // stride),
            lambda buffers: buffers,
            block_carries,
        )
        return advance(carry, block * block_size, (block + 1) * block_size), block_carries

    num_blocks = longest((length + block_size - 1) // block_size)
    stride = (num_blocks + block_size - 1) // block_size  # blocks between two stored block carries
    last_carry, block_carries = lax.fori_loop(
        0, num_blocks - 1, keep_block_starts, (carry, scratch.block_carries)
    )

    def backward_block(i: jax.Array, state: _Backward) -> _Backward:
        block = num_blocks - 1 - i
        offset = block * block_size
        # The forward pass has just arrived at the last block; the others start from what it kept.
        stored = _tree.index(block_carries, block // stride)
        entering = advance(
            _tree.select(i == 0, last_carry, stored),
            jnp.where(i == 0, offset, (block // stride) * stride * block_size),
            offset,
        )
        num_steps = longest(jnp.clip(length - offset, 0, block_size))
        leaving, step_carries, ys = _record(
            step, keep, params, entering, state.step_carries, state.ys, offset, num_steps, length
        )
        state = state._replace(
            step_carries=step_carries,
            ys=ys,
            final_carry=_tree.select(i == 0, leaving, state.final_carry),
        )
        state = _read_out(
            problem, keep, params, stream, start, offset, num_steps, length, chunk, state
        )
        return _backpropagate(problem, step, keep, params, offset, num_steps, length, state)

    cotangent = jax.tree.map(jnp.zeros_like, _tree.partition(carry)[0])
    padded = -(-block_size // chunk) * chunk
    one = jnp.ones((), jnp.result_type(float))  # float64 where enabled: sums may be wider than y
    state = _Backward(
        grads=_tree.zero_sums(params),
        cotangent=cotangent,
        loss_sum=jnp.zeros_like(one),
        num_losses=jnp.zeros((), jnp.int32),
        step_carries=scratch.step_carries,
        ys=jax.tree.map(lambda y: _zeros(padded, y), y_type),
        final_carry=carry,
        max_compensation=one,
        max_weight=one,
    )
    state = lax.fori_loop(0, num_blocks, backward_block, state)
    return SegmentResult(
        grads=jax.tree.map(lambda g, x: g.astype(x.dtype), state.grads, params),
        loss_sum=state.loss_sum,
        num_losses=state.num_losses,
        carry=state.final_carry,
        scratch=Scratch(state.step_carries, block_carries),
        max_compensation=state.max_compensation,
        max_weight=state.max_weight,
    )


class _Backward(NamedTuple):
    """What the backward pass carries from block to block."""

    grads: Any
    cotangent: Any  # δ, on the differentiable leaves of the carry; None elsewhere
    loss_sum: jax.Array
    num_losses: jax.Array
    step_carries: Any
    ys: Any  # the ys of a block, then, where differentiable, their cotangents
    final_carry: Any
    max_compensation: jax.Array
    max_weight: jax.Array


_Step = Callable[[Any, Any, jax.Array], tuple[Any, Any]]
_Keep = Callable[[jax.Array, Any, Any], Any]


def _record(
    step: _Step,
    keep: _Keep,
    params: Any,
    carry: Any,
    step_carries: Any,
    ys: Any,
    offset: jax.Array,
    num_steps: jax.Array,
    length: jax.Array,
) -> tuple[Any, Any, Any]:
    """Runs one block forward; stores the carry that enters each step and the y it returns."""

    def body(i: jax.Array, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        carry, step_carries, ys = state
        new_carry, y = step(params, carry, offset + i)
        step_carries = _tree.update(step_carries, carry, i)
        return keep(offset + i < length, new_carry, carry), step_carries, _tree.update(ys, y, i)

    return lax.fori_loop(0, num_steps, body, (carry, step_carries, ys))


def _read_out(
    problem: Problem,
    keep: _Keep,
    params: Any,
    stream: Stream,
    start: jax.Array,
    offset: jax.Array,
    num_steps: jax.Array,
    length: jax.Array,
    chunk: int,
    state: _Backward,
) -> _Backward:
    """Takes the losses of a block; replaces its ys by their cotangents ∂ℓ/∂y.

    Readout gradients are not gated: ∂ℓ_t/∂θ and ∂ℓ_t/∂s_t enter with weight 1.
    """

    def body(j: jax.Array, state: _Backward) -> _Backward:
        steps = j * chunk + jnp.arange(chunk, dtype=jnp.int32)
        valid = offset + steps < length
        # Slots beyond the segment repeat a real step: a loss that is finite on real input stays so.
        real = jnp.clip(steps, 0, jnp.maximum(jnp.minimum(length - offset, num_steps) - 1, 0))
        ys = _gather(state.ys, real)
        at = start + jnp.minimum(offset + real, length - 1)
        targets = _gather(stream.targets, at)
        if stream.mask is not None:
            mask = _gather(stream.mask, at).astype(bool)
            valid = mask & _tree.align(valid, mask)
        float_ys, other_ys = _tree.partition(ys)

        def loss(params: Any, float_ys: Any) -> tuple[jax.Array, jax.Array]:
            ys = _tree.combine(float_ys, other_ys)
            return loss_and_count(problem.loss_fn, params, ys, targets, valid)

        (loss_sum, count), (grads, cotangents) = jax.value_and_grad(loss, (0, 1), has_aux=True)(
            params, float_ys
        )
        cotangents = _tree.combine(cotangents, other_ys)
        return state._replace(
            grads=keep(offset < length, _tree.accumulate(state.grads, grads), state.grads),
            loss_sum=state.loss_sum + loss_sum.astype(state.loss_sum.dtype),
            num_losses=state.num_losses + count,
            ys=jax.tree.map(
                lambda buffer, new: lax.dynamic_update_slice_in_dim(buffer, new, j * chunk, 0),
                state.ys,
                cotangents,
            ),
        )

    return lax.fori_loop(0, (num_steps + chunk - 1) // chunk, body, state)


def _backpropagate(
    problem: Problem,
    step: _Step,
    keep: _Keep,
    params: Any,
    offset: jax.Array,
    num_steps: jax.Array,
    length: jax.Array,
    state: _Backward,
) -> _Backward:
    """The ARTBP recursion, from the last step of a block to its first.

        δ_t = ∂ℓ_t/∂s_t + gate_t · (∂F_{t+1}/∂s_t)ᵀ δ_{t+1},    gate_t = 1/(1 − c_t)

    (arXiv 1705.08209: truncated backpropagation with the backward flow compensated), here with
    the readout's part ∂ℓ_t/∂s_t entering through the cotangent of y_t. At the segment's last step
    X_t = 1, the gate is 0: δ starts at zero there. What is carried is (∂F_{t+1}/∂s_t)ᵀ δ_{t+1}.
    """
    accumulate_dtype = state.max_weight.dtype

    def body(j: jax.Array, state: _Backward) -> _Backward:
        i = num_steps - 1 - j
        t = offset + i
        active = t < length
        gate = jnp.asarray(problem.compensation(t + 1), accumulate_dtype)
        interior = t < length - 1
        carry, carry_rest = _tree.partition(_tree.index(state.step_carries, i))

        def differentiable_step(params: Any, carry: Any) -> tuple[Any, Any]:
            new_carry, y = step(params, _tree.combine(carry, carry_rest), t)
            return _tree.partition(new_carry)[0], _tree.partition(y)[0]

        _, pullback = jax.vjp(differentiable_step, params, carry)
        delta = jax.tree.map(lambda leaf: scale(leaf, gate), state.cotangent)
        y_cotangent = _tree.partition(_tree.index(state.ys, i))[0]
        grads, cotangent = pullback((delta, y_cotangent))
        gate_used = jnp.where(interior, gate, jnp.ones_like(gate))
        return state._replace(
            grads=keep(active, _tree.accumulate(state.grads, grads), state.grads),
            cotangent=keep(active, cotangent, state.cotangent),
            max_compensation=jnp.maximum(state.max_compensation, gate_used),
            max_weight=state.max_weight * gate_used,
        )

    return lax.fori_loop(0, num_steps, body, state)


def _gather(tree: Any, steps: jax.Array) -> Any:
    """`leaf[steps]` for every leaf; the steps are in range."""
    return jax.tree.map(lambda leaf: leaf.at[steps].get(mode="promise_in_bounds"), tree)


def _zeros(num_steps: int, y: jax.ShapeDtypeStruct) -> jax.Array:
    """Zeros `[num_steps, ...]` like y, and sharded as y where axes are explicit."""
    one = jnp.zeros(y.shape, y.dtype, out_sharding=y.sharding)
    return jnp.broadcast_to(one, (num_steps, *y.shape))
