"""Backpropagation through a window of past steps, from the stored carries that entered them.

The carries are in a ring of fixed size: the carry that entered step t is in slot t mod size. So the
memory of a window does not grow with the stream, and each new step costs one write.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.estimators.stepwise import Advance, Steps, before_steps, for_steps
from artbp.unrolls.recursion import Collect, add, backpropagate


def steps_so_far(num_steps: jax.Array, first: jax.Array, end: jax.Array) -> jax.Array:
    """Returns how many steps the present sequence has after the steps first, …, end − 1, int32.

    `num_steps` is their number before, 0 in a new ring. A sequence begins with each pass of the
    stream, and where the inner state is made anew in the middle of a pass. A window must not go
    back further: the older carries of the ring do not lead to the present ones.
    """
    return jnp.minimum(num_steps + (end - first), end)


def run_forward(
    steps: Steps,
    params: Any,
    carry: Any,
    carries: Any,
    first: jax.Array,
    end: jax.Array,
    count: Any,
    *,
    size: int,
    new: jax.Array,
    window: jax.Array | None = None,
) -> Advance:
    """Runs the steps first, …, end − 1 and writes the carries that enter them into the ring.

    Args:
      count: ≥ end − first, see `for_steps`.
      size: of the ring.
      new: losses are summed from this step on.
      window: steps before this one give their readout its own gradient, ∂ℓ/∂θ with y held; None
        where there are no such steps.

    Returns:
      An `Advance` whose inner state is the ring, and whose gradient is that of these readouts.
    """

    def body(t: jax.Array, valid: jax.Array, loop: Advance) -> Advance:
        slot = t % size
        entering = _tree.select(valid, loop.carry, _tree.index(loop.inner_state, slot))
        new_carry, y = steps.run(params, loop.carry, t)
        sums = loop.grads
        if window is None:
            loss, counted = steps.loss(params, y, t)
        else:
            (loss, counted), grads = jax.value_and_grad(steps.loss, has_aux=True)(params, y, t)
            grads = _tree.select(valid & (t < window), grads, _tree.zeros_like(grads))
            sums = _tree.accumulate(sums, grads)
        counts = valid & (t >= new)
        of_step = loss.astype(loop.loss_sum.dtype), counted
        loss, counted = _tree.select(counts, of_step, _tree.zeros_like(of_step))
        return Advance(
            grads=sums,
            carry=_tree.select(valid, new_carry, loop.carry),
            inner_state=_tree.update(loop.inner_state, entering, slot),
            loss_sum=loop.loss_sum + loss,
            counted=_tree.accumulate(loop.counted, counted),
        )

    loop = before_steps(steps, params, _tree.zero_sums(params), carry, carries)
    return for_steps(count, first, end, body, loop)


def run_backward(
    steps: Steps,
    params_at: Callable[[jax.Array], Any],
    carries: Any,
    first: jax.Array,
    end: jax.Array,
    collected: Any,
    *,
    size: int,
    weight: Callable[[jax.Array], jax.Array],
    count: int | None = None,
    collect: Collect = add,
) -> Any:
    """Backpropagates Σ_t w_t ℓ_t through the steps first, …, end − 1 of a window.

    The carries that entered the steps are in the ring. Nothing flows into the window from behind
    it, and all gates are 1 within it.

    Args:
      params_at: step -> the params at which the step is differentiated.
      collected: what `collect` starts from; by default sums that the gradient is added to.
      size: of the ring.
      weight: step -> w_t.
      count: ≥ end − first, a static trip count, with which `jax.vmap` adds no select over the loop.
      collect: see `recursion.backpropagate`. It is given the gradient of each step, like params,
        and the cotangent of the carry that entered the step; steps count from `first`.
    """

    def pull_back(j: Any, flow: Any) -> tuple[Any, Any]:
        t = jnp.minimum(first + j, end - 1)
        floats, rest = _tree.partition(_tree.index(carries, t % size))
        step = steps.differentiable(rest, t)
        (_, loss), pull_back, _ = jax.vjp(step, params_at(t), floats, has_aux=True)
        return pull_back((flow, jnp.full_like(loss, weight(t))))

    flow = _tree.zeros_like(_tree.partition(_tree.index(carries, 0))[0])
    if count is None:
        return backpropagate(pull_back, collect, flow, collected, count=end - first)[1]
    taken = first + jnp.arange(count, dtype=jnp.int32) < end
    return backpropagate(pull_back, collect, flow, collected, count=count, taken=taken)[1]
