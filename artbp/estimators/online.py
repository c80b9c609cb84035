"""Gradients forward in time: what RTRL, UORO and SnAp-1 share.

    g_t = ∂ℓ_t/∂θ + (ds_{t−1}/dθ)ᵀ ∂ℓ_t/∂s_{t−1}

with ℓ_t seen as a function of θ and of the carry that enters step t. They differ in how they keep
ds_t/dθ, handed in here as two functions: what a cotangent of the carry makes of it, and how it
moves on by a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.estimators.base import GradientEstimator
from artbp.estimators.stepwise import Advance, Steps, for_steps, stepwise
from artbp.unrolls.checks import Cell, check_positive
from artbp.unrolls.readout import LossFn


class StepDerivatives(NamedTuple):
    """The derivatives of one step s' = F(s; θ), as linear maps on the differentiable leaves.

    Attributes:
      params: θ.
      floats: the differentiable leaves of s, None elsewhere.
      push: (tangent of θ or None, tangent of s) -> tangent of s',
        (∂F/∂θ) · the first + (∂F/∂s) · the second.
      pull: cotangent of s' -> (cotangent of θ, (∂F/∂θ)ᵀ · cotangent; that of s).
    """

    params: Any
    floats: Any
    push: Callable[[Any, Any], Any]
    pull: Callable[[Any], tuple[Any, Any]]


class _Loop(NamedTuple):
    carry: Any
    sensitivity: Any
    grads: Any
    loss_sum: jax.Array
    num_losses: jax.Array


def online(
    cell: Cell,
    loss_fn: LossFn,
    *,
    begin: Callable[[Any, Any], Any],
    gradient: Callable[[Any, Any, Any], Any],
    move_on: Callable[[Any, StepDerivatives, jax.Array, jax.Array], Any],
    update_every: int,
    normalizer: float,
) -> GradientEstimator:
    """Builds an online estimator from the way it keeps the sensitivity ds/dθ.

    Args:
      cell, loss_fn, normalizer: see `artbp.artbp`.
      begin: `begin(params, floats) -> sensitivity`, that of a carry that does not depend on θ;
        floats are the differentiable leaves of the carry, None elsewhere.
      gradient: `gradient(params, sensitivity, credit) -> (ds/dθ)ᵀ credit`, like params.
      move_on: `move_on(sensitivity, derivatives, t, rng_key) -> sensitivity` after step t.
      update_every: steps whose gradients are summed before an estimate returns.
    """
    check_positive(update_every=update_every, integer=True)

    def begin_stream(params: Any, carry: Any) -> Any:
        return begin(params, _tree.partition(carry)[0])

    def advance(
        steps: Steps,
        params: Any,
        carry: Any,
        inner_state: Any,
        first: jax.Array,
        end: jax.Array,
        rng_key: jax.Array,
    ) -> Advance:
        zero = jnp.zeros((), jnp.result_type(float))

        def body(t: jax.Array, valid: jax.Array, loop: _Loop) -> _Loop:
            floats, rest = _tree.partition(loop.carry)
            step = steps.differentiable(rest, t)
            (new_floats, loss), pull, (new_rest, count) = jax.vjp(
                step, params, floats, has_aux=True
            )

            def push(of_params: Any, of_floats: Any) -> Any:
                if of_params is None:
                    return jax.jvp(lambda s: step(params, s)[0][0], (floats,), (of_floats,))[1]
                tangents = (of_params, of_floats)
                return jax.jvp(lambda *at: step(*at)[0][0], (params, floats), tangents)[1]

            direct, credit = pull((_tree.zeros_like(new_floats), jnp.ones_like(loss)))
            derivatives = StepDerivatives(
                params, floats, push, lambda cotangent: pull((cotangent, jnp.zeros_like(loss)))
            )
            moved = move_on(loop.sensitivity, derivatives, t, jax.random.fold_in(rng_key, t))
            grads = _tree.accumulate(loop.grads, direct)
            new = _Loop(
                carry=_tree.combine(new_floats, new_rest),
                sensitivity=moved,
                grads=_tree.accumulate(grads, gradient(params, loop.sensitivity, credit)),
                loss_sum=loop.loss_sum + loss.astype(zero.dtype),
                num_losses=loop.num_losses + count,
            )
            return _tree.select(valid, new, loop)

        none = jnp.zeros((), jnp.int32)
        loop = _Loop(carry, inner_state, _tree.zero_sums(params), zero, none)
        loop = for_steps(steps.at_most(update_every), first, end, body, loop)
        return Advance(loop.grads, loop.carry, loop.sensitivity, loop.loss_sum, loop.num_losses)

    return stepwise(
        cell,
        loss_fn,
        update_every=update_every,
        begin=begin_stream,
        advance=advance,
        normalizer=normalizer,
    )
