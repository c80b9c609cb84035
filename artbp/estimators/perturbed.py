"""Shared parts of truncated ES and PES: unrolls with perturbed parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from artbp import _tree
from artbp.estimators.stepwise import Steps, for_steps


class Unroll(NamedTuple):
    """carry: after the last step; loss_sum, num_losses: of the steps."""

    carry: Any
    loss_sum: jax.Array
    num_losses: jax.Array


def run_steps(
    steps: Steps, params: Any, carry: Any, first: jax.Array, end: jax.Array, count: int
) -> Unroll:
    """Runs the steps first, …, end − 1, at most `count`, without derivatives of cell or loss."""
    zero = jnp.zeros((), jnp.result_type(float))

    def body(t: jax.Array, valid: jax.Array, state: Unroll) -> Unroll:
        carry, y = steps.run(params, state.carry, t)
        loss, number = steps.loss(params, y, t)
        new = Unroll(carry, state.loss_sum + loss.astype(zero.dtype), state.num_losses + number)
        return _tree.select(valid, new, state)

    start = Unroll(carry, zero, jnp.zeros((), jnp.int32))
    return for_steps(steps.at_most(count), first, end, body, start)


def draw_perturbations(rng_key: jax.Array, params: Any, num_pairs: int, scale: float) -> Any:
    """Draws normal deviates of standard deviation `scale`, one set per pair: `[M, ...]`.

    Raises:
      TypeError: params that are complex, or narrower than float32, where θ ± ε would be rounded.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype.itemsize < 4:
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} has dtype {leaf.dtype}; evolution strategies "
                "need real params of float32 or wider, since θ ± ε must not be rounded. Keep them "
                "in float32 and cast inside the cell."
            )

    def normal(rng_key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return scale * jax.random.normal(rng_key, (num_pairs, *shape), dtype)

    return optax.tree.random_like(rng_key, params, normal)


def antithetic_pairs(perturbations: Any) -> Any:
    """Stacks ε of every pair, then −ε of every pair: `[2 M, ...]`."""
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf, -leaf]), perturbations)


def antithetic_gradient(losses: jax.Array, perturbations: Any, scale: float) -> Any:
    """Computes 1/(2 M σ²) Σ_m ε_m (L_m⁺ − L_m⁻) from losses `[2 M]`, ordered by sign."""
    positive, negative = jnp.split(losses, 2)
    weights = (positive - negative) / (2 * positive.size * scale**2)

    def weighted_sum(leaf: jax.Array) -> jax.Array:
        dtype = _tree.at_least_float32(leaf.dtype)
        return jnp.tensordot(weights.astype(dtype), leaf.astype(dtype), 1)

    return jax.tree.map(weighted_sum, perturbations)
