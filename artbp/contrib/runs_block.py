"""One block of many rows side by side, each row at a place of its own in a segment of its own.

Step i of a block is the same trip of one loop for every row, so that carries and ys are stored and
read at an index that all rows share: no scatter, no gather, no select over a buffer. A row with
fewer steps in the block waits until the others are through it. `block` is the same for one segment.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls import readout
from artbp.unrolls.gate import scale
from artbp.unrolls.readout import ReadOut
from artbp.unrolls.segment import Problem


@dataclasses.dataclass(frozen=True)
class RowsBlock:
    """Where R rows stand, and what runs them.

    Attributes:
      problem: cell, loss function and gates, shared by the rows.
      stream, stream_axes: the stream, and its axes over rows as for `jax.vmap`; None: shared.
      params, initial_carry: `[R, ...]`.
      size: steps in a block, static.
      start: int32 `[R]`, the step of the stream that the block begins with.
      num_steps: int32 `[R]`, how many steps of the block a row takes, from 0 to `size`.
    """

    problem: Problem
    stream: Stream
    stream_axes: Any
    params: Any
    initial_carry: Any
    size: int
    start: jax.Array
    num_steps: jax.Array

    def step(self, params: Any, carry: Any, i: jax.Array) -> tuple[Any, Any]:
        """Step i of the block, in every row; a row that is through runs some step of the stream."""

        def one_row(
            params: Any, carry: Any, initial_carry: Any, stream: Stream, t: jax.Array
        ) -> tuple[Any, Any]:
            if stream.resets is not None:
                carry = _tree.select(_tree.index(stream.resets, t), initial_carry, carry)
            return self.problem.cell(params, carry, _tree.index(stream.xs, t))

        rows = jax.vmap(one_row, in_axes=(0, 0, 0, self.stream_axes, 0))
        return rows(params, carry, self.initial_carry, self.stream, self.start + i)


def record(block: RowsBlock, carry: Any) -> tuple[Any, Any, Any]:
    """Runs the block forward from `carry` `[R, ...]`.

    Returns:
      (the carry after each row's last step, the carries that enter the steps `[size, R, ...]`, the
      ys of the steps `[size, R, ...]`).
    """

    # A scan, not a loop over a buffer that lives on: for a cell whose derivative does not depend on
    # its carry, XLA then sees that nobody reads the stored carries, and stores none.
    def body(carry: Any, i: jax.Array) -> tuple[Any, tuple[Any, Any]]:
        new_carry, y = block.step(block.params, carry, i)
        return _tree.select(i < block.num_steps, new_carry, carry), (carry, y)

    carry, (step_carries, ys) = lax.scan(body, carry, jnp.arange(block.size, dtype=jnp.int32))
    return carry, step_carries, ys


def read_out(block: RowsBlock, ys: Any) -> ReadOut:
    """Takes the losses of all steps of a block at once.

    Readout gradients are not gated: ∂ℓ_t/∂θ and ∂ℓ_t/∂s_t enter with weight 1.

    Returns:
      Sums and gradients `[R, ...]`, cotangents `[size, R, ...]`. What stands in a row without steps
      is no use.
    """

    def one_row(
        params: Any, ys: Any, stream: Stream, start: jax.Array, num_steps: jax.Array
    ) -> ReadOut:
        slots = jnp.arange(block.size, dtype=jnp.int32)
        valid = slots < num_steps
        # Slots beyond the segment repeat the first: a loss that is finite on real input stays so.
        real = jnp.where(valid, slots, 0)
        ys = _tree.select(valid, ys, jax.tree.map(lambda y: y[:1], ys))
        return readout.read_out(block.problem.loss_fn, params, ys, stream, start + real, valid)

    in_axes, out_axes = (0, 1, block.stream_axes, 0, 0), ReadOut._make((0, 0, 0, 1))
    rows = jax.vmap(one_row, in_axes=in_axes, out_axes=out_axes)
    return rows(block.params, ys, block.stream, block.start, block.num_steps)


def backpropagate(
    block: RowsBlock,
    gates: jax.Array,
    step_carries: Any,
    y_cotangents: Any,
    grads: Any,
    cotangent: Any,
) -> tuple[Any, Any]:
    """The ARTBP recursion, from the last step of the block to its first.

        δ_t = ∂ℓ_t/∂s_t + gate_t · (∂F_{t+1}/∂s_t)ᵀ δ_{t+1},    gate_t = 1/(1 − c_t)

    Args:
      gates: float `[size, R]`.
      step_carries, y_cotangents: from `record` and `read_out`.
      grads: the sums so far, `[R, ...]` like params, float32 or wider.
      cotangent: (∂F_{t+1}/∂s_t)ᵀ δ_{t+1} for the last step t of the block, on the differentiable
        leaves of the carry; zero behind a boundary.

    Returns:
      (grads, cotangent) at the block's first step; a row without steps keeps its own.
    """

    def body(loop: tuple[Any, Any], step: Any) -> tuple[tuple[Any, Any], None]:
        grads, cotangent = loop
        i, gate, entering, y_cotangent = step
        carry, carry_rest = _tree.partition(entering)

        def differentiable_step(params: Any, carry: Any) -> tuple[Any, Any]:
            new_carry, y = block.step(params, _tree.combine(carry, carry_rest), i)
            return _tree.partition(new_carry)[0], _tree.partition(y)[0]

        _, pullback = jax.vjp(differentiable_step, block.params, carry)
        gated = jax.tree.map(lambda leaf: scale(leaf, gate), cotangent)
        step_grads, new_cotangent = pullback((gated, y_cotangent))
        taken = i < block.num_steps
        grads = _tree.select(taken, _tree.accumulate(grads, step_grads), grads)
        return (grads, _tree.select(taken, new_cotangent, cotangent)), None

    steps = (jnp.arange(block.size, dtype=jnp.int32), gates, step_carries, y_cotangents)
    return lax.scan(body, (grads, cotangent), steps, reverse=True)[0]
