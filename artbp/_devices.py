"""Sums over the devices that `jax.shard_map` splits the rows over.

Within `jax.shard_map`, JAX tracks over which mesh axes a value differs (its type shows them:
`{V:rows}`). Where replicated params meet rows that differ, JAX would sum the gradient over the
devices at each product, inside the loops over steps. So params are first marked as differing. Each
device then sums up the gradient of its own rows, and one sum over the devices ends the estimate.
Outside of `jax.shard_map`, and with `check_vma=False`, no value has such axes and nothing happens.
"""

from collections.abc import Iterable
from typing import Any

import jax
from jax import lax


def axes_of_rows(params: Any, data: Any) -> tuple[str, ...]:
    """The mesh axes over which the data differ and params do not."""
    return tuple(sorted(varying(data) - varying(params)))


def on_each(tree: Any, axes: Iterable[str]) -> Any:
    """The tree, marked as differing over the axes, so that its gradients are not summed there."""

    def of_leaf(leaf: Any) -> Any:
        new = tuple(axis for axis in sorted(axes) if axis not in varying(leaf))
        return lax.pcast(leaf, new, to="varying") if new else leaf

    return jax.tree.map(of_leaf, tree)


def total(tree: Any, axes: tuple[str, ...]) -> Any:
    """The sum of the devices' trees over the axes."""
    return lax.psum(tree, axes) if axes else tree


def rows_of_device(array: jax.Array, like: jax.Array) -> jax.Array:
    """The part of an array of all rows `[B, ...]` that belongs to this device, shaped like `like`.

    Raises:
      ValueError: the array has neither the rows of `like` nor those of all devices together.
    """
    if array.shape == like.shape:
        return array
    axes, num_rows = varying(like), like.shape[0]
    if len(axes) == 1 and array.shape == (num_rows * lax.axis_size(*axes), *like.shape[1:]):
        return lax.dynamic_slice_in_dim(array, num_rows * lax.axis_index(*axes), num_rows)
    raise ValueError(
        f"make_carry(params) returned an array of shape {array.shape}, but the carry has shape "
        f"{like.shape}; expected the same shape. Return as many rows as the carry has."
    )


def varying(tree: Any) -> frozenset[str]:
    """The mesh axes over which a leaf differs. Leaves may be abstract."""
    types = (jax.typeof(leaf).manual_axis_type for leaf in jax.tree.leaves(tree))
    return frozenset().union(*(found.varying for found in types if found is not None))
