"""Unbiased online recurrent optimisation (UORO): RTRL with a random rank-one influence matrix."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from artbp import _tree
from artbp._checks import check_positive
from artbp.estimators.base import GradientEstimator
from artbp.estimators.online import Sensitivity, StepDerivatives, online
from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import LossFn


class RankOne(NamedTuple):
    """s̃, like the differentiable leaves of the carry, and θ̃, like params; complex ones in parts."""

    state: Any
    params: Any


def random_signs(rng_key: jax.Array, t: jax.Array, like: Any) -> Any:
    """Draws independent signs ±1, like the leaves of `like`."""
    del t
    return optax.tree.random_like(rng_key, like, jax.random.rademacher)


def uoro(
    cell: Cell,
    loss_fn: LossFn,
    *,
    update_every: int = 1,
    epsilon: float = 1e-7,
    draw_signs: Callable[[jax.Array, jax.Array, Any], Any] = random_signs,
    normalizer: float = 1.0,
) -> GradientEstimator:
    """UORO computes an unbiased online gradient at the cost and memory of a few steps of the cell.

        g_t = ∂ℓ_t/∂θ + (s̃_{t−1} · ∂ℓ_t/∂s_{t−1}) θ̃_{t−1},          E[s̃_t θ̃_tᵀ] = J_t = ds_t/dθ
        s̃_t = ρ0 (∂F_t/∂s_{t−1}) s̃_{t−1} + ρ1 ν
        θ̃_t = θ̃_{t−1} / ρ0 + (∂F_t/∂θ)ᵀ ν / ρ1          ν random signs

    Products of ν with independent factors have mean zero, and E[ν νᵀ] = 1. The mean of s̃ θ̃ᵀ
    therefore follows RTRL's recursion, for any ρ0, ρ1 > 0 that do not depend on the sign of ν. The
    product with ∂F/∂s is exact (`jax.jvp`); other implementations take a finite difference.

    One estimate is `update_every` steps. With frozen params the gradients of a pass sum to an
    unbiased estimate of the gradient of `artbp.bptt`. The variance grows with the number of units
    and with the rows of the batch, which together form one state; average over keys with
    `jax.vmap`. A reset zeroes s̃ for its rows but not θ̃, which adds noise and no bias.

    Args:
      cell, loss_fn, normalizer: as for `artbp.rtrl`.
      update_every: steps per estimate; the last estimate of a pass may have fewer.
      epsilon: added to the norms in ρ0 and ρ1, to keep them finite and positive.
      draw_signs: `draw_signs(rng_key, t, like) -> ν` at step t of the stream. The default draws
        independent random signs; pass your own to enumerate all signs. `like` is the carry without
        the leaves that are not differentiable. In place of a complex leaf it has a named tuple
        `(real, imag)`.

    Raises:
      ValueError: update_every is not an integer ≥ 1, epsilon not above 0; otherwise as
        `artbp.rtrl`.
      TypeError: as `artbp.rtrl`.

    Source: Tallec & Ollivier, "Unbiased Online Recurrent Optimization" (arXiv 1702.05043),
    Algorithm 1 with its choice of ρ0 and ρ1.
    """
    check_positive(epsilon=epsilon)

    def zero(params: Any, floats: Any) -> RankOne:
        return RankOne(_tree.zeros_like(floats), _tree.zeros_like(params))

    def gradient(params: Any, sensitivity: RankOne, cotangent: Any) -> Any:
        del params

        def product(s: jax.Array, c: jax.Array) -> jax.Array:
            return jnp.sum(s * c, dtype=_tree.at_least_float32(s.dtype))

        products = jax.tree.map(product, sensitivity.state, cotangent)
        inner = sum(jax.tree.leaves(products), start=0.0)

        def scaled(x: jax.Array) -> jax.Array:
            dtype = _tree.at_least_float32(x.dtype)
            return jnp.asarray(inner, dtype) * x.astype(dtype)

        return jax.tree.map(scaled, sensitivity.params)

    def update(
        sensitivity: RankOne, derivatives: StepDerivatives, t: jax.Array, rng_key: jax.Array
    ) -> RankOne:
        signs = draw_signs(rng_key, t, derivatives.floats)
        tangent = derivatives.jvp(None, sensitivity.state)
        gradient, _ = derivatives.vjp(signs)

        def ratio(above: Any, below: Any) -> jax.Array:
            return jnp.sqrt((optax.tree.norm(above) + epsilon) / (optax.tree.norm(below) + epsilon))

        # In float16 the norms may overflow, and epsilon be rounded to 0.
        wide = map(_tree.widened, (tangent, signs, sensitivity.params, gradient))
        tangent, signs, params, gradient = wide
        # These balance the norms of the two factors, which keeps the variance small.
        rho_0, rho_1 = ratio(params, tangent), ratio(gradient, signs)
        new = RankOne(
            jax.tree.map(lambda x, s: rho_0 * x + rho_1 * s, tangent, signs),
            jax.tree.map(lambda x, g: x / rho_0 + g / rho_1, params, gradient),
        )
        return _tree.astype(new, sensitivity)

    undivided = "uoro represents the sensitivities of all rows by one random product"
    sensitivity = Sensitivity(zero, gradient, update)
    return online(cell, loss_fn, sensitivity, update_every, normalizer, undivided)
