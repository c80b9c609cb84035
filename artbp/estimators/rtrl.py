"""Real-time recurrent learning (RTRL): the exact gradient, forward in time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec

from artbp import _tree
from artbp.estimators.base import GradientEstimator
from artbp.estimators.online import Sensitivity, StepDerivatives, online
from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import LossFn


def rtrl(
    cell: Cell, loss_fn: LossFn, *, update_every: int = 1, normalizer: float = 1.0
) -> GradientEstimator:
    """RTRL computes the whole-sequence gradient after each step, without a backward pass in time.

        J_t = (∂F_t/∂s_{t−1}) J_{t−1} + ∂F_t/∂θ          J_t = ds_t/dθ
        g_t = ∂ℓ_t/∂θ + J_{t−1}ᵀ ∂ℓ_t/∂s_{t−1}

    One estimate is `update_every` steps. With frozen params the gradients of a pass sum to the
    gradient of `artbp.bptt`, exactly. With updates during the pass, J mixes params of different
    times.

    RTRL suits small models only. With P parameters and N numbers in the carry of all rows, J has
    N·P entries. A step takes P products with its derivative in forward mode and, if N < P, another
    N in reverse mode. A complex number counts twice in N and P: its real and its imaginary part. If
    the rows are split over an explicit mesh, every device holds all of J.

    Args:
      cell, loss_fn, normalizer: as for `artbp.artbp`; any cell that JAX can differentiate in
        forward mode too, so none with a `jax.custom_vjp`.
      update_every: steps per estimate; the last estimate of a pass may have fewer.

    Raises:
      ValueError: update_every is not an integer ≥ 1; otherwise as `artbp.artbp`.
      TypeError: from `estimate`, a cell or loss that JAX cannot differentiate; otherwise as
        `artbp.artbp`.

    Source: Williams & Zipser, "A learning algorithm for continually running fully recurrent neural
    networks", Neural Computation 1 (1989); the recursion of p_ij^k in matrix form, for any cell.
    """

    def update_influence(
        influence: jax.Array, derivatives: StepDerivatives, t: jax.Array, rng_key: jax.Array
    ) -> jax.Array:
        del t, rng_key
        num_params, num_entries = influence.shape
        if num_params <= num_entries:
            return forward_mode_update(influence, derivatives)
        return jnp.add(*influence_terms(influence, derivatives))

    sensitivity = Sensitivity(zero_influence, influence_gradient, update_influence)
    return online(cell, loss_fn, sensitivity, update_every, normalizer)


def ravel(tree: Any) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    """`ravel_pytree`, also of leaves that are split over explicit mesh axes.

    The vector is whole on every device, and its inverse splits the leaves again.
    """
    if not _tree.is_sharded(tree):
        return ravel_pytree(tree)
    specs = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding.spec, tree)
    whole = jax.tree.map(lambda leaf: jax.sharding.reshard(leaf, PartitionSpec()), tree)
    flat, to_tree = ravel_pytree(whole)
    return flat, lambda flat: jax.tree.map(jax.sharding.reshard, to_tree(flat), specs)


def zero_influence(params: Any, floats: Any) -> jax.Array:
    """Makes J = 0, `[P, N]`, for a carry that does not depend on θ."""
    flat_params, flat_carry = ravel(params)[0], ravel(floats)[0]
    dtype = _tree.at_least_float32(flat_carry.dtype)
    return jnp.zeros((flat_params.size, flat_carry.size), dtype)


def influence_gradient(params: Any, influence: jax.Array, cotangent: Any) -> Any:
    """Computes Jᵀ ∂ℓ/∂s, like params."""
    flat_params, to_params = ravel(params)
    flat = influence @ ravel(cotangent)[0].astype(influence.dtype)
    return to_params(flat.astype(flat_params.dtype))


def influence_terms(influence: jax.Array, derivatives: StepDerivatives) -> tuple[Any, Any]:
    """Computes (∂F/∂s) J and ∂F/∂θ, both `[P, N]`."""
    flat_carry, to_carry = ravel(derivatives.floats)

    def propagated(column: jax.Array) -> jax.Array:
        column = column.astype(flat_carry.dtype)
        return ravel(derivatives.jvp(None, to_carry(column)))[0]

    def immediate(cotangent: jax.Array) -> jax.Array:
        return ravel(derivatives.vjp(to_carry(cotangent))[0])[0]

    each_entry = jnp.eye(flat_carry.size, dtype=flat_carry.dtype)
    matrices = jax.vmap(propagated)(influence), jax.vmap(immediate)(each_entry).T
    return jax.tree.map(lambda matrix: matrix.astype(influence.dtype), matrices)


def forward_mode_update(influence: jax.Array, derivatives: StepDerivatives) -> jax.Array:
    """Computes (∂F/∂s) J + ∂F/∂θ in forward mode, with one product per parameter."""
    flat_params, to_params = ravel(derivatives.params)
    flat_carry, to_carry = ravel(derivatives.floats)

    def column_update(direction: jax.Array, column: jax.Array) -> jax.Array:
        column = column.astype(flat_carry.dtype)
        return ravel(derivatives.jvp(to_params(direction), to_carry(column)))[0]

    each_param = jnp.eye(flat_params.size, dtype=flat_params.dtype)
    return jax.vmap(column_update)(each_param, influence).astype(influence.dtype)
