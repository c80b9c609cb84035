"""The forward gradient: the derivative along random directions, carried forward in time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp._checks import check_positive
from artbp.estimators.base import GradientEstimator
from artbp.estimators.online import Sensitivity, StepDerivatives, online
from artbp.estimators.uoro import random_signs
from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import LossFn


class Directions(NamedTuple):
    """M directions u of the params, and the derivatives of the carry along them."""

    params: Any  # u, like params `[M, ...]`; complex leaves in parts, here and below
    state: Any  # (ds/dθ) u, like the differentiable leaves of the carry `[M, ...]`
    are_drawn: jax.Array  # bool


def forward_gradient(
    cell: Cell,
    loss_fn: LossFn,
    *,
    update_every: int = 1,
    num_directions: int = 1,
    draw_directions: Callable[[jax.Array, Any], Any] | None = None,
    normalizer: float = 1.0,
) -> GradientEstimator:
    """The forward gradient takes the derivative along M random directions u, online.

        g_t = ∂ℓ_t/∂θ + 1/M Σ_m (v_m · ∂ℓ_t/∂s_{t−1}) u_m,      v = (ds_{t−1}/dθ) u
        v ← (∂F_t/∂s_{t−1}) v + (∂F_t/∂θ) u                      u random signs

    u is drawn where the stream begins, and again wherever a reset replaces the carry of all rows:
    what follows does not depend on earlier steps. As E[u uᵀ] = 1, the gradients of a pass with
    frozen params sum to an unbiased estimate of the gradient of `artbp.bptt`. It needs no backward
    pass in time. The part of the gradient that does not pass through the carry is exact, not
    estimated. The variance grows with the number of parameters.

    All rows share u. So a reset of some rows zeroes v for these rows and leaves u as it is. Between
    two draws, the estimated part of every gradient is a combination of the same M directions: on a
    long stream without resets, training explores few of them.

    Args:
      cell, loss_fn, normalizer: as for `artbp.rtrl`.
      update_every: steps per estimate; the last estimate of a pass may have fewer.
      num_directions: M, 1 or more.
      draw_directions: `draw_directions(rng_key, like) -> u`, `[M, ...]` for each leaf of `like`,
        which has zeros of this shape; E[u uᵀ] must be 1. In place of a complex leaf it has a named
        tuple `(real, imag)`. The default draws independent random signs, whose variance is the
        lowest among independent numbers; pass your own to enumerate all signs.

    Raises:
      ValueError: update_every or num_directions is not an integer ≥ 1; otherwise as `artbp.rtrl`.
      TypeError: as `artbp.rtrl`.

    Source: Silver et al., "Learning by Directional Gradient Descent" (ICLR 2022; "DODGE") with
    random directions; Baydin et al., "Gradients without Backpropagation" (arXiv 2202.08587) for the
    name.
    """
    check_positive(num_directions=num_directions, integer=True)

    def zero(params: Any, floats: Any) -> Directions:
        zeros = _tree.zeros_like(_tree.repeat((params, floats), num_directions))
        return Directions(*zeros, are_drawn=jnp.zeros((), bool))

    def gradient(params: Any, directions: Directions, cotangent: Any) -> Any:
        del params

        def product(v: jax.Array, c: jax.Array) -> jax.Array:
            dtype = _tree.at_least_float32(v.dtype)
            return jnp.tensordot(v.astype(dtype), c.astype(dtype), c.ndim)

        products = jax.tree.map(product, directions.state, cotangent)
        zeros = jnp.zeros(num_directions)
        slopes = sum((p.astype(zeros.dtype) for p in jax.tree.leaves(products)), start=zeros)  # [M]

        def mean(u: jax.Array) -> jax.Array:
            dtype = _tree.at_least_float32(u.dtype)
            return jnp.tensordot(slopes.astype(dtype), u.astype(dtype), 1) / num_directions

        return jax.tree.map(mean, directions.params)

    def update(
        directions: Directions, derivatives: StepDerivatives, t: jax.Array, rng_key: jax.Array
    ) -> Directions:
        def draw(like: Any) -> Any:
            if draw_directions is None:
                return random_signs(rng_key, t, like)
            return draw_directions(rng_key, like)

        # The loop runs once or not at all, so steps that keep their directions draw nothing. This
        # also holds under `jax.vmap`, where `lax.cond` would run both branches: there, all streams
        # draw where one of them begins, and the others keep what they have.
        is_new = ~directions.are_drawn | derivatives.all_replaced
        _, params = jax.lax.while_loop(
            lambda loop: loop[0],
            lambda loop: (jnp.zeros_like(loop[0]), draw(loop[1])),
            (is_new, directions.params),
        )
        state = jax.vmap(derivatives.jvp)(params, directions.state)
        return Directions(params, state, jnp.ones((), bool))

    sensitivity = Sensitivity(zero, gradient, update, needs_all_replaced=True)
    return online(cell, loss_fn, sensitivity, update_every, normalizer)
