"""Real-time recurrent learning (RTRL): the exact gradient, forward in time.

    J_t = (∂F_t/∂s_{t−1}) J_{t−1} + ∂F_t/∂θ          J_t = ds_t/dθ
    g_t = ∂ℓ_t/∂θ + J_{t−1}ᵀ ∂ℓ_t/∂s_{t−1}

Nothing is truncated and no past is stored; what is paid instead is J, a number for each pair of a
parameter and an entry of the carry.

Source: Williams & Zipser, "A learning algorithm for continually running fully recurrent neural
networks", Neural Computation 1 (1989).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from artbp import _tree
from artbp.estimators.base import GradientEstimator
from artbp.estimators.online import StepDerivatives, online
from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import LossFn


def rtrl(
    cell: Cell,
    loss_fn: LossFn,
    *,
    update_every: int = 1,
    normalizer: float = 1.0,
) -> GradientEstimator:
    """RTRL: the whole-sequence gradient after each step, without going back.

        J_t = (∂F_t/∂s_{t−1}) J_{t−1} + ∂F_t/∂θ
        g_t = ∂ℓ_t/∂θ + J_{t−1}ᵀ ∂ℓ_t/∂s_{t−1}

    One estimate is `update_every` steps. With frozen params the gradients of a pass sum to that
    of `artbp.bptt`, exactly; with updates on the way, J mixes the params of different times.

    For P parameters and a carry of N numbers (all rows of a batch together), J has N·P entries, and
    a step takes P products with its derivative in forward mode, and N in reverse mode where N < P:
    small models only.

    Args:
      cell, loss_fn, normalizer: as for `artbp.artbp`; any cell.
      update_every: steps per estimate; at the end of the stream it is those that are left.

    Raises:
      ValueError: update_every is not an integer ≥ 1; otherwise as `artbp.artbp`.

    Source: Williams & Zipser, Neural Computation 1 (1989); the recursion is their Eq. for p_ij^k,
    in matrix form and for any cell.
    """

    def move_on(
        influence: jax.Array, derivatives: StepDerivatives, t: jax.Array, rng_key: jax.Array
    ) -> jax.Array:
        del t, rng_key
        num_params, num_entries = influence.shape
        if num_params <= num_entries:
            return pushed_together(influence, derivatives)
        transported, immediate = next_influence(influence, derivatives)
        return transported + immediate

    return online(
        cell,
        loss_fn,
        begin=no_influence,
        gradient=credited,
        move_on=move_on,
        update_every=update_every,
        normalizer=normalizer,
    )


def no_influence(params: Any, floats: Any) -> jax.Array:
    """J = 0 `[P, N]`, of a carry that does not depend on θ."""
    flat_params, flat_carry = ravel_pytree(params)[0], ravel_pytree(floats)[0]
    dtype = _tree.at_least_float32(flat_carry.dtype)
    return jnp.zeros((flat_params.size, flat_carry.size), dtype)


def credited(params: Any, influence: jax.Array, credit: Any) -> Any:
    """Jᵀ ∂ℓ/∂s, like params."""
    flat_params, to_params = ravel_pytree(params)
    flat = influence @ ravel_pytree(credit)[0].astype(influence.dtype)
    return to_params(flat.astype(flat_params.dtype))


def next_influence(
    influence: jax.Array, derivatives: StepDerivatives
) -> tuple[jax.Array, jax.Array]:
    """((∂F/∂s) J, ∂F/∂θ), both `[P, N]`."""
    flat_carry, to_carry = ravel_pytree(derivatives.floats)

    def transport(column: jax.Array) -> jax.Array:
        column = column.astype(flat_carry.dtype)
        return ravel_pytree(derivatives.push(None, to_carry(column)))[0]

    def immediate(cotangent: jax.Array) -> jax.Array:
        return ravel_pytree(derivatives.pull(to_carry(cotangent))[0])[0]

    each_entry = jnp.eye(flat_carry.size, dtype=flat_carry.dtype)
    matrices = jax.vmap(transport)(influence), jax.vmap(immediate)(each_entry).T
    return jax.tree.map(lambda matrix: matrix.astype(influence.dtype), matrices)


def pushed_together(influence: jax.Array, derivatives: StepDerivatives) -> jax.Array:
    """(∂F/∂s) J + ∂F/∂θ, in forward mode alone: as many products as there are parameters."""
    flat_params, to_params = ravel_pytree(derivatives.params)
    flat_carry, to_carry = ravel_pytree(derivatives.floats)

    def push(direction: jax.Array, column: jax.Array) -> jax.Array:
        column = column.astype(flat_carry.dtype)
        return ravel_pytree(derivatives.push(to_params(direction), to_carry(column)))[0]

    each_param = jnp.eye(flat_params.size, dtype=flat_params.dtype)
    return jax.vmap(push)(each_param, influence).astype(influence.dtype)
