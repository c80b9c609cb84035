"""Complex leaves as pairs of real leaves, for RTRL, SnAp-1 and UORO.

These estimators multiply derivatives by unit vectors or random signs. A complex number z = x + iy
needs one of these for x and another for y, because the derivative of a function that is not
holomorphic is linear over the real numbers only. Real leaves stay as they are.

    ∂L/∂z = ∂L/∂x − i ∂L/∂y          the convention of `jax.grad`, for a real loss L
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Parts(NamedTuple):
    """The two real leaves in place of a complex one."""

    real: Any
    imag: Any


def _is_parts(node: Any) -> bool:
    return isinstance(node, Parts)


def to_parts(tree: Any) -> Any:
    """Replaces every complex leaf by its `Parts`."""
    return jax.tree.map(lambda x: Parts(x.real, x.imag) if jnp.iscomplexobj(x) else x, tree)


def from_parts(tree: Any) -> Any:
    """The inverse of `to_parts`."""
    return _join(lax.complex, tree)


def gradient_from_parts(tree: Any) -> Any:
    """The gradient by complex leaves, as `jax.grad` gives it, from the gradient by their parts."""
    return _join(lambda real, imag: lax.complex(real, -imag), tree)


def _join(join: Callable[[jax.Array, jax.Array], jax.Array], tree: Any) -> Any:
    def of_node(node: Any) -> Any:
        return join(*node) if _is_parts(node) else node

    return jax.tree.map(of_node, tree, is_leaf=_is_parts)


def either_part(flags: Any) -> Any:
    """Flags that are True in both parts of a complex number where they are in one of them."""

    def of_node(node: Any) -> Any:
        return Parts(*[node.real | node.imag] * 2) if _is_parts(node) else node

    return jax.tree.map(of_node, flags, is_leaf=_is_parts)
