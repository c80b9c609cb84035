"""The gate: an identity in the forward pass, a factor in the backward pass.

    gate(s, g) = s            ∂gate/∂s = g

Truncated BPTT puts g = 0 at its boundaries; ARTBP puts g = (1 − X_t)/(1 − c_t) after every
step (Tallec & Ollivier, arXiv 1705.08209).
"""

from typing import Any

import jax
import jax.numpy as jnp

from artbp import _tree


def gate(carry: Any, factor: jax.Array) -> Any:
    """Returns `carry` unchanged, and multiplies its cotangent by `factor` in the backward pass.

        value:      gate(carry, factor) == carry
        cotangent:  ct -> factor * ct

    Forward and reverse mode both work, also nested, and the factor may be traced. A factor of 0
    cuts infinite cotangents too. No gradient flows to the factor.

    Args:
      carry: any pytree. Integer, boolean and key leaves pass through untouched.
      factor: float, a scalar, or `[B]` with every differentiable leaf `[B, ...]`.
    """
    if factor is None or isinstance(factor, str) or jnp.iscomplexobj(factor):
        raise TypeError(
            f"factor is {factor!r}; expected a real number, or floats [B]. Pass real numbers."
        )
    factor = jnp.asarray(factor)
    check_gate_rows(carry, factor)

    return jax.tree.map(
        lambda leaf: _gate_leaf(leaf, factor) if _tree.is_inexact(leaf) else leaf, carry
    )


def check_gate_rows(carry: Any, factor: jax.Array) -> None:
    """Raises ValueError unless the factor is a scalar, or has one entry for each row."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(carry):
        fits = factor.ndim == 0 or jnp.shape(leaf)[: factor.ndim] == factor.shape
        if _tree.is_inexact(leaf) and not fits:
            raise ValueError(
                f"factor has shape {factor.shape} and carry{jax.tree_util.keystr(path)} "
                f"{jnp.shape(leaf)}; expected a scalar, or [B] with every float leaf [B, ...]. "
                "Pass one factor for each row."
            )


@jax.custom_jvp
def _gate_leaf(leaf: jax.Array, factor: jax.Array) -> jax.Array:
    del factor
    return leaf


@_gate_leaf.defjvp
def _gate_leaf_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    leaf, factor = primals
    tangent, _ = tangents
    # In the backward pass the select comes first, so 0 · ∞ never occurs.
    return leaf, cut_or_scale(tangent, factor)


def cut_or_scale(leaf: jax.Array, factor: jax.Array) -> jax.Array:
    """The action of the gate on a cotangent: `factor * leaf`, and 0 where the factor is 0."""
    cut = _tree.align(factor, leaf) == 0
    return jnp.where(cut, jnp.zeros_like(leaf), scale(leaf, factor))


def scale(leaf: jax.Array, factor: jax.Array) -> jax.Array:
    """`factor * leaf` in the dtype of `leaf`, the product taken in float32 or wider.

    Compensations multiply along a segment. If each were rounded to bfloat16 first, the product of
    two hundred would be far off.
    """
    dtype = _tree.at_least_float32(leaf.dtype)
    product = leaf.astype(dtype) * _tree.align(factor, leaf).astype(dtype)
    return product.astype(leaf.dtype)
