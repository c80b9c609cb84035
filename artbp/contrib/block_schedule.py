"""The schedule by which many runs advance together, one block at a time.

No run waits for another run's segment. In every iteration every run takes one block forward. A run
that has reached its goal, the block to be backpropagated next, also takes that block backward:

    forward to the last block, the first goal; backward through it;
    then for each earlier block: load the carry that entered it, forward again, backward.

A segment of n blocks takes 2n − 1 iterations. Running its blocks again adds no cost, because an
iteration runs the forward pass in any case. The carries that entered the blocks are kept for
`num_slots` iterations, in a ring with one slot per iteration, which all runs write together. That
serves segments of up to num_slots/2 blocks. In a longer segment, a block whose carry has been
overwritten is reached by running forward from the segment's start again. The length has no cap: a
cap would be a boundary with c = 1, which nothing compensates.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.contrib import runs_block
from artbp.contrib.runs_block import RunsBlock
from artbp.estimators.base import EstimatorInfo

Ring = tuple[Any, jax.Array]


class RunsSegment(NamedTuple):
    """The progress of R runs in their segments; all arrays `[R, ...]`.

    Attributes:
      info: of the segment; sums and maxima so far, over the steps from the goal's end on.
      block, goal: int32, the block to run in this iteration, and the one to backpropagate next.
      num_iterations: int32, iterations since the run last started from the segment's start.
      reload: bool, whether the carry entering `block` is to be taken from the ring.
      carry: enters `block` otherwise.
      leaving: the carry after the segment's last step, once there.
      flow: (∂F_{t+1}/∂s_t)ᵀ δ_{t+1} for the goal's last step t.
      grads: so far, like params, float32 or wider.
    """

    info: EstimatorInfo
    block: jax.Array
    goal: jax.Array
    num_iterations: jax.Array
    reload: jax.Array
    carry: Any
    leaving: Any
    flow: Any
    grads: Any


def begin(params: Any, carry: Any, length: jax.Array, block_size: int) -> RunsSegment:
    """Segments of `length` `[R]` steps that start from `carry` in the next iteration."""
    zero = jnp.zeros_like(length)
    one, no = jnp.ones(length.shape, jnp.result_type(float)), jnp.zeros(length.shape, bool)
    return RunsSegment(
        info=EstimatorInfo(jnp.zeros_like(one), zero, length, one, one, end_of_stream=no),
        block=zero,
        goal=(length - 1) // block_size,
        num_iterations=zero,
        reload=no,
        carry=carry,
        leaving=carry,
        flow=_tree.zeros_like(_tree.partition(carry)[0]),
        grads=_tree.zero_sums(params),
    )


def advance(
    block: RunsBlock, segment: RunsSegment, first_carry: Any, running: jax.Array, ring: Ring
) -> tuple[RunsSegment, jax.Array, Ring]:
    """Takes one block forward in every active run, and backward in those at their goal.

    Args:
      block: what runs the runs; `start` is where their segments start, `num_steps` is not read.
      segment: from `begin` or the iteration before.
      first_carry: `[R, ...]`, entered the segments.
      running: bool `[R]`. The others change only in fields that `begin` sets again.
      ring: the carries that entered the blocks of the last iterations, `[num_slots, R, ...]`, never
        read before written; and the slot of this iteration, int32.

    Returns:
      (the segments after it, bool `[R]` whether they are finished, the next iteration's ring).
    """
    carries, slot = ring
    num_slots = jax.tree.leaves(carries)[0].shape[0]
    runs = jnp.arange(segment.goal.shape[0], dtype=jnp.int32)
    # Block j entered the ring j iterations after the run's last start.
    goal_slot = (slot - segment.num_iterations + segment.goal) % num_slots
    kept = jax.tree.map(lambda leaf: leaf.at[goal_slot, runs].get(mode="clip"), carries)
    carry = _tree.select(segment.reload, kept, segment.carry)
    ring = _tree.update(carries, carry, slot), (slot + 1) % num_slots
    offset = segment.block * block.size
    num_steps = jnp.clip(segment.info.length - offset, 0, block.size)
    forward = dataclasses.replace(
        block, start=block.start + offset, num_steps=jnp.where(running, num_steps, 0)
    )
    carry, step_carries, ys = runs_block.record(forward, carry)
    at_goal = running & (segment.block == segment.goal)
    at_end = at_goal & (offset + num_steps == segment.info.length)
    segment = segment._replace(leaving=_tree.select(at_end, carry, segment.leaving))
    segment = _backward(forward, segment, offset, at_goal, step_carries, ys)
    finished = at_goal & (segment.goal == 0)

    # The next goal, and how to get there: from the carry kept, or from the start if it is gone.
    goal = segment.goal - at_goal.astype(jnp.int32)
    is_kept = segment.num_iterations - goal < num_slots
    again = at_goal & ~is_kept
    segment = segment._replace(
        block=jnp.where(at_goal, jnp.where(is_kept, goal, 0), segment.block + 1),
        goal=goal,
        num_iterations=jnp.where(again, 0, segment.num_iterations + 1),
        reload=at_goal & is_kept,
        carry=_tree.select(again, first_carry, carry),
    )
    return segment, finished, ring


def _backward(
    block: RunsBlock, segment: RunsSegment, offset: Any, at_goal: Any, step_carries: Any, ys: Any
) -> RunsSegment:
    """The backward pass over the block, in the runs at their goal."""
    block = dataclasses.replace(block, num_steps=jnp.where(at_goal, block.num_steps, 0))
    read = runs_block.read_out(block, ys)
    gates, info = None, segment.info
    info = info._replace(
        loss_sum=info.loss_sum + read.loss_sum.astype(info.loss_sum.dtype),
        num_losses=info.num_losses + read.counted.num_losses,
    )
    if block.functions.compensation is not None:
        ages = offset[None, :] + jnp.arange(1, block.size + 1, dtype=jnp.int32)[:, None]
        gates = jnp.asarray(block.functions.compensation(ages), info.max_weight.dtype)
        used = jnp.where(at_goal[None, :] & (ages < info.length[None, :]), gates, 1)
        info = info._replace(
            max_compensation=jnp.maximum(info.max_compensation, jnp.max(used, axis=0)),
            max_weight=info.max_weight * jnp.prod(used, axis=0),
        )
    grads = _tree.select(at_goal, _tree.accumulate(segment.grads, read.grads), segment.grads)
    grads, flow = runs_block.backpropagate(
        block, gates, step_carries, read.y_cotangents, grads, segment.flow
    )
    return segment._replace(info=info, flow=flow, grads=grads)
