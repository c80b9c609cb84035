"""Unrolls with perturbed parameters: what truncated ES and PES share."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.estimators.stepwise import Steps, for_steps


class Unrolled(NamedTuple):
    """carry: after the last step; loss_sum, num_losses: of the steps."""

    carry: Any
    loss_sum: jax.Array
    num_losses: jax.Array


def unrolled(
    steps: Steps, params: Any, carry: Any, first: jax.Array, end: jax.Array, count: int
) -> Unrolled:
    """Runs the steps first, …, end − 1, at most `count`; needs no derivative of cell or loss."""
    zero = jnp.zeros((), jnp.result_type(float))

    def body(t: jax.Array, valid: jax.Array, state: Unrolled) -> Unrolled:
        carry, y = steps.run(params, state.carry, t)
        loss, number = steps.loss(params, y, t)
        new = Unrolled(carry, state.loss_sum + loss.astype(zero.dtype), state.num_losses + number)
        return _tree.select(valid, new, state)

    return for_steps(
        steps.at_most(count), first, end, body, Unrolled(carry, zero, jnp.zeros((), jnp.int32))
    )


def draw_perturbations(rng_key: jax.Array, params: Any, num_pairs: int, scale: float) -> Any:
    """Normal deviates of standard deviation `scale`, one set per pair: like params `[M, ...]`.

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
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(rng_key, len(leaves))
    drawn = [
        scale * jax.random.normal(key, (num_pairs, *leaf.shape), leaf.dtype)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return treedef.unflatten(drawn)


def both_signs(perturbations: Any) -> Any:
    """ε of every pair, then −ε of every pair: `[2 M, ...]`."""
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf, -leaf]), perturbations)


def weighted_sum(weights: jax.Array, trees: Any) -> Any:
    """Σ_m weights[m] · trees[m]."""

    def of_leaf(leaf: jax.Array) -> jax.Array:
        dtype = _tree.at_least_float32(leaf.dtype)
        return jnp.tensordot(weights.astype(dtype), leaf.astype(dtype), 1)

    return jax.tree.map(of_leaf, trees)
