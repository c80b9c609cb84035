"""Unbiased online recurrent optimisation (UORO): RTRL with its matrix replaced by one product.

    J_t ≈ s̃_t θ̃_tᵀ,    E[s̃_t θ̃_tᵀ] = J_t

    s̃_t = ρ0 (∂F_t/∂s_{t−1}) s̃_{t−1} + ρ1 ν
    θ̃_t = θ̃_{t−1} / ρ0 + (∂F_t/∂θ)ᵀ ν / ρ1          ν random signs

The products of ν with what it is independent of vanish on average, and E[ν νᵀ] = 1: so the mean of
s̃ θ̃ᵀ follows RTRL's recursion, for any ρ0, ρ1 > 0 that do not change when ν changes its sign.

Source: Tallec & Ollivier, "Unbiased Online Recurrent Optimization" (arXiv 1702.05043), Algorithm 1
and the choice of ρ0, ρ1 that goes with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from artbp import _tree
from artbp.estimators.base import GradientEstimator
from artbp.estimators.online import StepDerivatives, online
from artbp.unrolls.checks import Cell, check_positive
from artbp.unrolls.readout import LossFn

DrawSigns = Callable[[jax.Array, jax.Array, Any], Any]


class RankOne(NamedTuple):
    """s̃, like the differentiable leaves of the carry, and θ̃, like params."""

    state: Any
    params: Any


def random_signs(rng_key: jax.Array, t: jax.Array, like: Any) -> Any:
    """±1 with equal chances, like the leaves of `like`."""
    del t
    leaves, treedef = jax.tree.flatten(like)
    keys = jax.random.split(rng_key, len(leaves))
    pairs = zip(keys, leaves, strict=True)
    return treedef.unflatten([jax.random.rademacher(k, x.shape, x.dtype) for k, x in pairs])


def uoro(
    cell: Cell,
    loss_fn: LossFn,
    *,
    update_every: int = 1,
    epsilon: float = 1e-7,
    draw_signs: DrawSigns = random_signs,
    normalizer: float = 1.0,
) -> GradientEstimator:
    """UORO: an unbiased online gradient at the cost and memory of a few steps of the cell.

        g_t = ∂ℓ_t/∂θ + (s̃_{t−1} · ∂ℓ_t/∂s_{t−1}) θ̃_{t−1}

    One estimate is `update_every` steps. With frozen params the gradients of a pass sum to an
    unbiased estimate of that of `artbp.bptt`. Its variance grows with the number of units, and
    with the rows of the batch, which are one state here; average over keys with `jax.vmap`. A reset
    empties s̃ for its rows, while θ̃ goes on: still unbiased, with more noise than need be.

    The product with ∂F/∂s is taken in forward mode (`jax.jvp`), so it is exact; a finite
    difference, as in other implementations, is not.

    Args:
      cell, loss_fn, normalizer: as for `artbp.artbp`; any cell.
      update_every: steps per estimate; at the end of the stream it is those that are left.
      epsilon: added to the norms that ρ0 and ρ1 are made of, to keep them finite and positive.
      draw_signs: `draw_signs(rng_key, t, like) -> ν` at step t of the stream; the default draws
        independent random signs. To enumerate over all signs, hand in your own.

    Raises:
      ValueError: update_every is not an integer ≥ 1, epsilon not above 0; otherwise as
        `artbp.artbp`.

    Source: Tallec & Ollivier, arXiv 1702.05043, Algorithm 1.
    """
    check_positive(epsilon=epsilon)

    def begin(params: Any, floats: Any) -> RankOne:
        return RankOne(_tree.zeros_like(floats), _tree.zeros_like(params))

    def gradient(params: Any, sensitivity: RankOne, credit: Any) -> Any:
        del params
        products = jax.tree.map(
            lambda s, c: jnp.sum(s * c, dtype=_tree.at_least_float32(s.dtype)),
            sensitivity.state,
            credit,
        )
        along = sum(jax.tree.leaves(products), start=0.0)

        def times(x: jax.Array) -> jax.Array:
            dtype = _tree.at_least_float32(x.dtype)
            return jnp.asarray(along, dtype) * x.astype(dtype)

        return jax.tree.map(times, sensitivity.params)

    def move_on(
        sensitivity: RankOne, derivatives: StepDerivatives, t: jax.Array, rng_key: jax.Array
    ) -> RankOne:
        signs = draw_signs(rng_key, t, derivatives.floats)
        pushed = derivatives.push(None, sensitivity.state)
        pulled, _ = derivatives.pull(signs)

        def ratio(above: Any, below: Any) -> jax.Array:
            return jnp.sqrt((optax.tree.norm(above) + epsilon) / (optax.tree.norm(below) + epsilon))

        # These balance the norms of the two factors, which keeps the variance small.
        rho_0 = ratio(sensitivity.params, pushed)
        rho_1 = ratio(pulled, signs)
        return RankOne(
            jax.tree.map(lambda x, sign: (rho_0 * x + rho_1 * sign).astype(x.dtype), pushed, signs),
            jax.tree.map(
                lambda x, g: (x / rho_0 + g / rho_1).astype(x.dtype), sensitivity.params, pulled
            ),
        )

    return online(
        cell,
        loss_fn,
        begin=begin,
        gradient=gradient,
        move_on=move_on,
        update_every=update_every,
        normalizer=normalizer,
    )
