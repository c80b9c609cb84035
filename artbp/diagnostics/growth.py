"""The leading Lyapunov exponent: whether perturbations of the carry grow or decay."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import lax

from artbp import _tree
from artbp.diagnostics.lag_gradients import UnrolledWindow

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
        by_row = norms if window.num_rows is not None else norms[0]
        factor = jnp.where(by_row > 0, 1 / jnp.where(by_row > 0, by_row, 1), 0)
        tangent = jax.tree.map(
            lambda leaf: leaf * _tree.align(factor, leaf).astype(leaf.dtype), tangent
        )
        return tangent, jnp.mean(jnp.log(norms))

    tangent = optax.tree.random_like(rng_key, _tree.partition(window.initial_carry)[0])
    _, logs = lax.scan(step, tangent, jnp.arange(stream.num_steps, dtype=jnp.int32))
    return jnp.mean(logs[stream.num_steps // 4 :])


def row_norms(tree: Any, num_rows: int | None) -> jax.Array:
    """Computes the norm over all leaves, `[B]`, or `[1]` without rows."""
    dtype = jnp.result_type(float)
    squares = [
        jnp.sum(jnp.reshape(jnp.abs(leaf).astype(dtype) ** 2, (num_rows or 1, -1)), axis=1)
        for leaf in jax.tree.leaves(tree)
    ]
    return jnp.sqrt(sum(squares[1:], squares[0]))


def dynamics_of(growth: float, num_lags: int) -> Dynamics:
    """Says whether a perturbation changes by more than a factor e over the lags, and how."""
    log_growth = growth * num_lags
    if log_growth > 1:
        return "exploding"
    return "vanishing" if log_growth < -1 else "long memory"
