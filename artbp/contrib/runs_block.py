"""Forward and backward passes over one block of many runs, each in a segment of its own.

Step i of the block is the same iteration of one loop for all runs, so carries and ys are stored and
read at an index that all runs share: without scatter, gather or select over a buffer. A run with
fewer steps in the block waits for the others. For a single segment see `artbp.unrolls.chunk`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls import readout, recursion
from artbp.unrolls.functions import Functions
from artbp.unrolls.readout import ReadOut


@dataclasses.dataclass(frozen=True)
class RunsBlock:
    """The positions of R runs in their streams, and what runs them.

    Attributes:
      functions: cell, loss function and compensation, shared by the runs.
      stream, stream_axes: the stream, and its axes over runs as for `jax.vmap`; None: shared.
      params, initial_carry: `[R, ...]`.
      size: steps in a block, static.
      start: int32 `[R]`, the step of the stream that the block begins with.
      num_steps: int32 `[R]`, how many steps of the block a run takes, from 0 to `size`.
    """

    functions: Functions
    stream: Stream
    stream_axes: Any
    params: Any
    initial_carry: Any
    size: int
    start: jax.Array
    num_steps: jax.Array

    def step(self, params: Any, carry: Any, i: jax.Array) -> tuple[Any, Any]:
        """Step i of the block in every run; ignore the result of a run with fewer steps."""

        def one_run(params: Any, carry: Any, initial_carry: Any, stream: Stream, t: Any) -> Any:
            if stream.resets is not None:
                carry = _tree.replace(_tree.index(stream.resets, t), initial_carry, carry)
            return self.functions.cell(params, carry, _tree.index(stream.xs, t))

        runs = jax.vmap(one_run, in_axes=(0, 0, 0, self.stream_axes, 0))
        return runs(params, carry, self.initial_carry, self.stream, self.start + i)


def record(block: RunsBlock, carry: Any) -> tuple[Any, Any, Any]:
    """Runs the block forward from `carry` `[R, ...]`.

    Returns:
      (the carry after each run's last step; of all steps, `[size, R, ...]`, entering carries; ys).
    """

    # A scan, not a loop over a buffer of the caller: for a cell whose derivative does not depend on
    # its carry, XLA then finds that the stored carries are never read, and stores none.
    def body(carry: Any, i: jax.Array) -> tuple[Any, tuple[Any, Any]]:
        new_carry, y = block.step(block.params, carry, i)
        return _tree.select(i < block.num_steps, new_carry, carry), (carry, y)

    carry, (step_carries, ys) = lax.scan(body, carry, jnp.arange(block.size, dtype=jnp.int32))
    return carry, step_carries, ys


def read_out(block: RunsBlock, ys: Any) -> ReadOut:
    """Takes the losses of all steps of a block at once.

    Readout gradients are not gated: ∂ℓ_t/∂θ and ∂ℓ_t/∂s_t enter with weight 1.

    Returns:
      Sums and gradients `[R, ...]`, cotangents `[size, R, ...]`. In a run without steps the sums
      are 0 and the gradients meaningless.
    """

    def one_run(params: Any, ys: Any, stream: Stream, start: Any, num_steps: Any) -> ReadOut:
        slots = jnp.arange(block.size, dtype=jnp.int32)
        valid = slots < num_steps
        # Slots beyond the segment repeat the first: a loss that is finite on real input stays so.
        real = jnp.where(valid, slots, 0)
        ys = _tree.select(valid, ys, jax.tree.map(lambda y: y[:1], ys))
        return readout.read_out(block.functions.loss_fn, params, ys, stream, start + real, valid)

    in_axes, out_axes = (0, 1, block.stream_axes, 0, 0), ReadOut._make((0, 0, 0, 1))
    runs = jax.vmap(one_run, in_axes=in_axes, out_axes=out_axes)
    return runs(block.params, ys, block.stream, block.start, block.num_steps)


def backpropagate(
    block: RunsBlock, gates: Any, step_carries: Any, y_cotangents: Any, grads: Any, flow: Any
) -> tuple[Any, Any]:
    """Runs the recursion (`artbp.unrolls.recursion`) over the block, every run with its own params.

    Args:
      gates: float `[size, R]`; None: all ones.
      step_carries, y_cotangents: from `record` and `read_out`.
      grads: the sums so far, `[R, ...]` like params, float32 or wider.
      flow: (∂F_{t+1}/∂s_t)ᵀ δ_{t+1} for the last step t of the block, on the differentiable leaves
        of the carry; zero behind a boundary.

    Returns:
      (grads, flow) at the block's first step; a run without steps keeps its own.
    """

    def pull_back(i: Any, flow: Any) -> tuple[Any, Any]:
        floats, rest = _tree.partition(_tree.index(step_carries, i))

        def step(params: Any, floats: Any) -> tuple[Any, Any]:
            new_carry, y = block.step(params, _tree.combine(floats, rest), i)
            return _tree.partition(new_carry)[0], _tree.partition(y)[0]

        return jax.vjp(step, block.params, floats)[1]((flow, _tree.index(y_cotangents, i)))

    taken = jnp.arange(block.size, dtype=jnp.int32)[:, None] < block.num_steps[None, :]
    options = {"count": block.size, "gates": gates, "taken": taken}
    flow, grads = recursion.backpropagate(pull_back, recursion.add, flow, grads, **options)
    return grads, flow
