"""Segments of many rows, advanced one block at a time: no row waits for another's segment.

In every round every row runs one block forward, and those that have arrived at their goal, the
block to be backpropagated next, go back through it:

    forward to the last block, which is the first goal; back through it;
    then for each earlier block: take the carry that entered it, run it again, go back through it.

So a segment of n blocks takes 2n − 1 rounds, and running its blocks again costs nothing that the
rounds would not cost anyway. The carries that entered the blocks are kept for `num_slots` rounds,
in a ring with one slot for a round, which all rows write together. That serves segments of up to
num_slots/2 blocks; in a longer one, a block whose carry is gone is reached by running forward from
the segment's start again. There is no cap on the length: a cap would be a boundary with c = 1 that
nothing compensates.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.contrib import runs_block
from artbp.contrib.runs_block import RowsBlock


class RowsSegment(NamedTuple):
    """How far R rows are in their segments; all arrays `[R, ...]`.

    Attributes:
      length: int32, of the segment.
      block, goal: int32, the block to run in this round, and the one to backpropagate next.
      num_rounds: int32, rounds since the row last set out from the segment's start.
      goal_slot: int32, the slot of the ring that holds, or will hold, the carry entering the goal.
      reload: bool, whether the carry entering `block` is to be taken from there.
      carry: enters `block` otherwise.
      leaving: the carry after the segment's last step, once there.
      cotangent, grads, loss_sum, num_losses, max_compensation, max_weight: of the steps from the
        goal's end to the segment's, as in `block.BlockState`.
    """

    length: jax.Array
    block: jax.Array
    goal: jax.Array
    num_rounds: jax.Array
    goal_slot: jax.Array
    reload: jax.Array
    carry: Any
    leaving: Any
    cotangent: Any
    grads: Any
    loss_sum: jax.Array
    num_losses: jax.Array
    max_compensation: jax.Array
    max_weight: jax.Array


class Ring(NamedTuple):
    """The carries that entered the blocks of the last rounds.

    Attributes:
      carries: `[num_slots, R, ...]`; never read before written.
      slot: int32, the slot of this round.
    """

    carries: Any
    slot: jax.Array


def make_ring(carry: Any, num_slots: int) -> Ring:
    """A ring for carries `[R, ...]`."""
    return Ring(_tree.repeat(carry, num_slots), jnp.zeros((), jnp.int32))


def begin(params: Any, carry: Any, length: jax.Array, ring: Ring, block_size: int) -> RowsSegment:
    """Segments of `length` `[R]` steps that set out from `carry` in the ring's round."""
    zero = jnp.zeros_like(length)
    one = jnp.ones(length.shape, jnp.result_type(float))
    goal = (length - 1) // block_size
    return RowsSegment(
        length=length,
        block=zero,
        goal=goal,
        num_rounds=zero,
        goal_slot=(ring.slot + goal) % _num_slots(ring),
        reload=jnp.zeros(length.shape, bool),
        carry=carry,
        leaving=carry,
        cotangent=_tree.zeros_like(_tree.partition(carry)[0]),
        grads=_tree.zero_sums(params),
        loss_sum=jnp.zeros_like(one),
        num_losses=zero,
        max_compensation=one,
        max_weight=one,
    )


def one_round(
    block: RowsBlock, segment: RowsSegment, first_carry: Any, running: jax.Array, ring: Ring
) -> tuple[RowsSegment, jax.Array, Ring]:
    """Runs one block of every running row.

    Args:
      block: what runs the rows; `start` is where their segments start, `num_steps` is not read.
      segment: from `begin` or the round before.
      first_carry: `[R, ...]`, entered the segments.
      running: bool `[R]`; the others stay as they are, but for fields that `begin` sets anew.
      ring: the round's.

    Returns:
      (the segments after the round, whether they are finished, bool `[R]`, the next round's ring).
    """
    num_slots = _num_slots(ring)
    rows = jnp.arange(segment.goal.shape[0], dtype=jnp.int32)
    kept = jax.tree.map(
        lambda leaf: leaf.at[segment.goal_slot, rows].get(mode="clip"), ring.carries
    )
    carry = _tree.select(segment.reload, kept, segment.carry)
    carries = _tree.update(ring.carries, carry, ring.slot)
    ring = Ring(carries, (ring.slot + 1) % num_slots)
    offset = segment.block * block.size
    num_steps = jnp.clip(segment.length - offset, 0, block.size)
    forward = dataclasses.replace(
        block, start=block.start + offset, num_steps=jnp.where(running, num_steps, 0)
    )
    carry, step_carries, ys = runs_block.record(forward, carry)
    at_goal = running & (segment.block == segment.goal)
    at_end = at_goal & (offset + num_steps == segment.length)
    segment = segment._replace(leaving=_tree.select(at_end, carry, segment.leaving))
    segment = _return(forward, segment, offset, at_goal, step_carries, ys)
    finished = at_goal & (segment.goal == 0)

    # The next goal, and how to get there: from the carry kept, or from the start if it is gone.
    goal = segment.goal - at_goal.astype(jnp.int32)
    before = jnp.where(segment.goal_slot == 0, num_slots, segment.goal_slot) - 1
    goal_slot = jnp.where(at_goal, before, segment.goal_slot)
    is_kept = segment.num_rounds - goal < num_slots
    again = at_goal & ~is_kept
    segment = segment._replace(
        block=jnp.where(at_goal, jnp.where(is_kept, goal, 0), segment.block + 1),
        goal=goal,
        num_rounds=jnp.where(again, 0, segment.num_rounds + 1),
        goal_slot=jnp.where(again, (ring.slot + goal) % num_slots, goal_slot),
        reload=at_goal & is_kept,
        carry=_tree.select(again, first_carry, carry),
    )
    return segment, finished, ring


def _return(
    block: RowsBlock,
    segment: RowsSegment,
    offset: jax.Array,
    at_goal: jax.Array,
    step_carries: Any,
    ys: Any,
) -> RowsSegment:
    """Takes the losses of the block, and goes back through it, in the rows at their goal."""
    block = dataclasses.replace(block, num_steps=jnp.where(at_goal, block.num_steps, 0))
    read = runs_block.read_out(block, ys)
    ages = offset[None, :] + jnp.arange(1, block.size + 1, dtype=jnp.int32)[:, None]
    gates = jnp.asarray(block.problem.compensation(ages), segment.max_weight.dtype)
    used = jnp.where(at_goal[None, :] & (ages < segment.length[None, :]), gates, 1)
    grads = _tree.select(at_goal, _tree.accumulate(segment.grads, read.grads), segment.grads)
    grads, cotangent = runs_block.backpropagate(
        block, gates, step_carries, read.y_cotangents, grads, segment.cotangent
    )
    loss_sum = segment.loss_sum + read.loss_sum.astype(segment.loss_sum.dtype)
    num_losses = segment.num_losses + read.num_losses
    return segment._replace(
        cotangent=cotangent,
        grads=grads,
        loss_sum=jnp.where(at_goal, loss_sum, segment.loss_sum),
        num_losses=jnp.where(at_goal, num_losses, segment.num_losses),
        max_compensation=jnp.maximum(segment.max_compensation, jnp.max(used, axis=0)),
        max_weight=segment.max_weight * jnp.prod(used, axis=0),
    )


def _num_slots(ring: Ring) -> int:
    return jax.tree.leaves(ring.carries)[0].shape[0]
