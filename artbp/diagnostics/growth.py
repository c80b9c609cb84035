"""The leading Lyapunov exponent: whether perturbations of the carry grow or decay."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import lax

from artbp import _tree
from artbp.diagnostics.lag_gradients import UnrolledWindow, row_products

Dynamics = Literal["exploding", "long memory", "vanishing"]


@jax.jit
def growth_rate(window: UnrolledWindow, rng_key: jax.Array) -> jax.Array:
    """Estimates the mean log growth of a random perturbation per step, averaged over rows.

    The first quarter of the steps is left out, during which the perturbation turns to the leading
    direction. A reset replaces the carry but not the perturbation.
    """
    stream = window.stream

    def step(tangent: Any, t: jax.Array) -> tuple[Any, jax.Array]:
        carry = _tree.index(window.carries, t)
        if stream.resets is not None:
            reset = jnp.asarray(_tree.index(stream.resets, t), bool)
            carry = _tree.select(reset, window.initial_carry, carry)
        floats, rest = _tree.partition(carry)

        def next_floats(floats: Any) -> Any:
            x = _tree.index(stream.xs, t)
            carry, _ = window.cell(window.params, _tree.combine(floats, rest), x)
            return _tree.partition(carry)[0]

        tangent = jax.jvp(next_floats, (floats,), (tangent,))[1]
        norms = row_norms(tangent, window.num_rows)
        factor = jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)
        factor = factor if window.num_rows is not None else factor[0]

        def normalize(leaf: jax.Array) -> jax.Array:
            return leaf * _tree.align(factor, leaf).astype(leaf.dtype)

        return jax.tree.map(normalize, tangent), jnp.mean(jnp.log(norms))

    tangent = optax.tree.random_like(rng_key, _tree.partition(window.initial_carry)[0])
    _, logs = lax.scan(step, tangent, jnp.arange(stream.num_steps, dtype=jnp.int32))
    return jnp.mean(logs[stream.num_steps // 4 :])


def row_norms(tree: Any, num_rows: int | None) -> jax.Array:
    """Computes the norm over all leaves, `[B]`, or `[1]` without rows."""
    sizes = jax.tree.map(jnp.abs, tree)
    return jnp.sqrt(row_products(sizes, sizes, num_rows or 1))


def dynamics_of(growth: float, num_lags: int) -> Dynamics:
    """Says whether a perturbation changes by more than a factor e over the lags, and how."""
    if growth * num_lags > 1:
        return "exploding"
    return "vanishing" if growth * num_lags < -1 else "long memory"
