"""Shared driver of the estimators that carry ds_t/dθ, or its products, forward in time.

    g_t = ∂ℓ_t/∂θ + (ds_{t−1}/dθ)ᵀ ∂ℓ_t/∂s_{t−1}

Here ℓ_t is a function of θ and of the carry that enters step t. The estimators differ in how they
represent the sensitivity ds_t/dθ. They see complex numbers as their real and imaginary parts.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp._checks import check_positive
from artbp.estimators.base import EstimatorState, GradientEstimator, Plan
from artbp.estimators.differentiation import REVERSE, explained, product
from artbp.estimators.real_parts import from_parts, gradient_from_parts, to_parts
from artbp.estimators.stepwise import Advance, Steps, before_steps, for_steps, stepwise
from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import LossFn


class StepDerivatives(NamedTuple):
    """The derivatives of one step s' = F(s; θ), as linear maps on the differentiable leaves.

    All trees hold real leaves: in place of a complex one there are its `real_parts.Parts`.
    """

    params: Any  # θ
    floats: Any  # the differentiable leaves of s, None elsewhere
    jvp: Callable[[Any, Any], Any]  # (tangent of θ or None, tangent of s) -> tangent of s'
    vjp: Callable[[Any], tuple[Any, Any]]  # cotangent of s' -> (cotangent of θ, cotangent of s)
    entering: Any  # the whole carry that the cell is given, after a reset
    x: Any
    is_replaced: Callable[[], Any]  # whether a reset replaced it: bool `[B]` for each leaf of it
    all_replaced: jax.Array  # in all rows? False unless `needs_all_replaced`


class Sensitivity(NamedTuple):
    """A representation of ds/dθ, as three functions of real leaves, as in `StepDerivatives`.

    Attributes:
      zero: `zero(params, floats) -> sensitivity` of a carry that does not depend on θ.
      gradient: `gradient(params, sensitivity, cotangent) -> (ds/dθ)ᵀ cotangent`, like params.
      update: `update(sensitivity, derivatives, t, rng_key) -> sensitivity` after step t.
      needs_all_replaced: whether `update` reads `StepDerivatives.all_replaced`. It costs a sum over
        the devices that share the rows.
    """

    zero: Callable[[Any, Any], Any]
    gradient: Callable[[Any, Any, Any], Any]
    update: Callable[[Any, StepDerivatives, jax.Array, jax.Array], Any]
    needs_all_replaced: bool = False


def online(
    cell: Cell,
    loss_fn: LossFn,
    sensitivity: Sensitivity,
    update_every: int,
    normalizer: float,
    undivided: str | None = None,
) -> GradientEstimator:
    """Builds an online estimator that sums the gradients of `update_every` steps.

    For `undivided` see `stepwise`.
    """
    check_positive(update_every=update_every, integer=True)

    def begin(params: Any, carry: Any) -> Any:
        return sensitivity.zero(*to_parts((params, _tree.partition(carry)[0])))

    def advance(
        steps: Steps, params: Any, state: EstimatorState, end: jax.Array, rng_key: jax.Array
    ) -> Advance:
        first, params = jnp.asarray(state.position), to_parts(params)
        count = steps.at_most(update_every)
        all_replaced = jnp.zeros(count, bool)
        if sensitivity.needs_all_replaced:
            # Leaves without a derivative, such as keys and counters, bring no influence along.
            all_replaced = steps.all_replaced(state.carry, first, count, _tree.is_inexact)

        def body(t: jax.Array, valid: jax.Array, loop: Advance) -> Advance:
            floats, rest = _tree.partition(loop.carry)
            floats, of_step = to_parts(floats), steps.differentiable(rest, t)

            def step(params: Any, floats: Any) -> tuple[Any, Any]:
                (new_floats, loss), aux = of_step(*from_parts((params, floats)))
                return (to_parts(new_floats), loss), aux

            def transition(params: Any, floats: Any) -> Any:
                params, floats = from_parts((params, floats))
                carry, _ = steps.run(params, _tree.combine(floats, rest), t)
                return to_parts(_tree.partition(carry)[0])

            def step_jvp(of_params: Any, of_floats: Any) -> Any:
                if of_params is None:
                    return product(partial(transition, params), (floats,), (of_floats,))
                return product(transition, (params, floats), (of_params, of_floats))

            def step_vjp(cotangent: Any) -> tuple[Any, Any]:
                return vjp((cotangent, jnp.zeros_like(loss)))

            with explained(REVERSE):
                (new_floats, loss), vjp, aux = jax.vjp(step, params, floats, has_aux=True)
                direct, cotangent = vjp((_tree.zeros_like(new_floats), jnp.ones_like(loss)))
            new_rest, counted = aux
            entering = steps.enter(loop.carry, t)
            derivatives = StepDerivatives(
                params=params,
                floats=floats,
                jvp=step_jvp,
                vjp=step_vjp,
                entering=entering,
                x=steps.x(t),
                is_replaced=partial(steps.is_replaced, loop.carry, t),
                all_replaced=all_replaced[t - first],
            )
            # Steps of the estimate, not of the stream: a sequence in chunks draws the same.
            key = jax.random.fold_in(rng_key, t - first)
            indirect = sensitivity.gradient(params, loop.inner_state, cotangent)
            new = Advance(
                grads=_tree.accumulate(_tree.accumulate(loop.grads, direct), indirect),
                carry=_tree.combine(from_parts(new_floats), new_rest),
                inner_state=sensitivity.update(loop.inner_state, derivatives, t, key),
                loss_sum=loop.loss_sum + loss.astype(loop.loss_sum.dtype),
                counted=_tree.accumulate(loop.counted, counted),
            )
            return _tree.select(valid, new, loop)

        sums = _tree.zero_sums(params)
        loop = before_steps(steps, from_parts(params), sums, state.carry, state.inner_state)
        result = for_steps(count, first, end, body, loop)
        return result._replace(grads=gradient_from_parts(result.grads))

    plan = Plan(int(update_every))
    return stepwise(
        cell, loss_fn, update_every, begin, advance, normalizer, plan=plan, undivided=undivided
    )
