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
import numpy as np
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


def other_parts(tree: Any) -> np.ndarray | None:
    """For each entry of the raveled tree, the index of the other part of its number.

    This is its own index where it is a real number. None if there are no complex numbers.
    """
    nodes = jax.tree.leaves(tree, is_leaf=_is_parts)
    if not any(_is_parts(node) for node in nodes):
        return None
    indices, first = [], 0
    for node in nodes:
        own = first + np.arange(sum(np.size(part) for part in jax.tree.leaves(node)))
        indices.append(np.roll(own, own.size // 2) if _is_parts(node) else own)
        first += own.size
    return np.concatenate(indices)
