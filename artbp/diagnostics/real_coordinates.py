"""Gradients as vectors of real numbers, also where params or carries are complex.

A complex number counts as two coordinates, its real and its imaginary part. A squared norm is then
Σ |g|², an inner product is ⟨a, b⟩ = Re Σ conj(a)·b, and a covariance has two rows for each complex
number. A complex gradient is the one that `jax.grad` returns, ∂L/∂x − i ∂L/∂y by z = x + iy.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import flatten_util

from artbp.estimators.real_parts import from_parts, to_parts


def ravel_real(tree: Any) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    """`jax.flatten_util.ravel_pytree` to real numbers: a real vector, and the inverse function.

    The order is that of `ravel_pytree`. Where a leaf is complex, all of its real parts come first,
    then all of its imaginary parts. Without complex leaves it is `ravel_pytree`.
    """
    flat, to_tree = flatten_util.ravel_pytree(to_parts(tree))
    return flat, lambda flat: from_parts(to_tree(flat))


def inner_product(a: Any, b: Any) -> jax.Array:
    """⟨a, b⟩ of two trees, a real scalar."""
    return jnp.asarray(optax.tree.vdot(to_parts(a), to_parts(b)))
