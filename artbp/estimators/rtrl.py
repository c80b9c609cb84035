"""Real-time recurrent learning (RTRL): the exact gradient, forward in time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec

from artbp import _devices, _tree
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
    N in reverse mode. A complex number counts twice in N and P: its real and its imaginary part.
    With `artbp.data_parallel`, each device holds J of its own rows. If you split the rows over an
    explicit mesh yourself, every device computes all of J.

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
        influence: Any, derivatives: StepDerivatives, t: jax.Array, rng_key: jax.Array
    ) -> Any:
        del t, rng_key
        num_params, num_entries = map(optax.tree.size, (derivatives.params, derivatives.floats))
        if num_params <= num_entries:
            return forward_mode_update(influence, derivatives)
        return jax.tree.map(jnp.add, *influence_terms(influence, derivatives))

    sensitivity = Sensitivity(zero_influence, influence_gradient, update_influence)
    return online(cell, loss_fn, sensitivity, update_every, normalizer)


def ravel(tree: Any) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    """`ravel_pytree`, also of leaves that are split over the devices.

    Over explicit mesh axes, the vector is whole on every device, and its inverse splits the leaves
    again. In `jax.shard_map`, each device has the vector of its own leaves.
    """
    if not _tree.is_sharded(tree):
        flat, to_tree = ravel_pytree(tree)
        return flat, lambda flat: _devices.on_each(to_tree(flat), _devices.varying(tree))
    shardings = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding, tree)
    whole = jax.tree.map(lambda sharding: sharding.update(spec=PartitionSpec()), shardings)
    flat, to_tree = ravel_pytree(jax.tree.map(jax.sharding.reshard, tree, whole))
    return flat, lambda flat: jax.tree.map(jax.sharding.reshard, to_tree(flat), shardings)


def zero_influence(params: Any, floats: Any) -> Any:
    """Makes J = 0 for a carry that does not depend on θ: like the carry, `[P, ...]` for each leaf.

    A leaf `[B, ...]` of the carry becomes `[P, B, ...]`, so the axis of rows is known.
    """
    num_params = ravel(params)[0].size
    flat, to_column = ravel(_tree.widened(floats))
    return jax.vmap(to_column)(jnp.zeros((num_params, flat.size), flat.dtype))


def to_matrix(influence: Any) -> jax.Array:
    """J as a matrix `[P, N]`."""
    return jax.vmap(lambda column: ravel(column)[0])(influence)


def influence_gradient(params: Any, influence: Any, cotangent: Any) -> Any:
    """Computes Jᵀ ∂ℓ/∂s, like params."""
    if not jax.tree.leaves(influence):  # the carry has no differentiable leaf
        return _tree.zeros_like(params)
    flat_params, to_params = ravel(params)
    matrix = to_matrix(influence)
    flat = matrix @ ravel(cotangent)[0].astype(matrix.dtype)
    return to_params(flat.astype(flat_params.dtype))


def influence_terms(influence: Any, derivatives: StepDerivatives) -> tuple[Any, Any]:
    """Computes (∂F/∂s) J and ∂F/∂θ, both like J."""
    if not jax.tree.leaves(influence):
        return influence, influence
    flat_carry, to_carry = ravel(derivatives.floats)
    flat_column, to_column = ravel(_tree.index(influence, 0))

    def propagated(column: Any) -> Any:
        tangent = derivatives.jvp(None, _tree.astype(column, derivatives.floats))
        return _tree.astype(tangent, column)

    def immediate(cotangent: jax.Array) -> jax.Array:
        return ravel(derivatives.vjp(to_carry(cotangent))[0])[0]

    each_entry = jnp.eye(flat_carry.size, dtype=flat_carry.dtype)
    matrix = jax.vmap(immediate)(each_entry).T.astype(flat_column.dtype)
    return jax.vmap(propagated)(influence), jax.vmap(to_column)(matrix)


def forward_mode_update(influence: Any, derivatives: StepDerivatives) -> Any:
    """Computes (∂F/∂s) J + ∂F/∂θ in forward mode, with one product per parameter."""
    flat_params, to_params = ravel(derivatives.params)

    def column_update(direction: jax.Array, column: Any) -> Any:
        tangent = _tree.astype(column, derivatives.floats)
        return _tree.astype(derivatives.jvp(to_params(direction), tangent), column)

    each_param = jnp.eye(flat_params.size, dtype=flat_params.dtype)
    return jax.vmap(column_update)(each_param, influence)
