"""Helpers on pytrees of arrays: differentiable leaves, selects by row, indexing by step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp import _devices

PyTree = Any


def is_inexact(leaf: Any) -> bool:
    """Whether `leaf` is a float or complex array, for which a cotangent exists."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def is_numeric(leaf: Any) -> bool:
    """Whether `leaf` is an array that JAX can hold: numbers, flags or keys, no texts or objects."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        return False
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.number, jnp.bool_, jax.dtypes.extended))


def is_key(leaf: Any) -> bool:
    """Whether `leaf` is an array of typed random keys."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def raw_key_shape() -> tuple[int, ...]:
    """The shape of one raw key, uint32: (2,), or (4,) where JAX's default implementation is rbg."""
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape


def is_raw_key(leaf: Any) -> bool:
    """Whether `leaf` has the type of one raw key."""
    return leaf.dtype == jnp.uint32 and leaf.shape == raw_key_shape()


def is_traced(tree: PyTree) -> bool:
    """Whether the caller is traced by jit, vmap, scan, …"""
    # Inside a jit without arguments, an operation on constants is traced all the same.
    leaves = [*jax.tree.leaves(tree), jnp.zeros(())]
    return any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


def is_known(leaf: Any) -> bool:
    """Whether `leaf` is an array whose values this process can read.

    It cannot read those of a trace, nor arrays that lie partly on devices of other processes.
    """
    if isinstance(leaf, jax.core.Tracer):
        return False
    return isinstance(leaf, np.ndarray) or (
        isinstance(leaf, jax.Array) and leaf.is_fully_addressable
    )


def one_array(value: Any) -> np.ndarray | jax.Array:
    """`value`, perhaps a list of numbers, as one array; as a JAX array if a number is traced."""
    if any(isinstance(leaf, (jax.Array, jax.core.Tracer)) for leaf in jax.tree.leaves(value)):
        return jnp.asarray(value)
    return np.asarray(value)


def is_linearized(leaf: Any) -> bool:
    """Whether `leaf` is a tracer of reverse-mode differentiation, perhaps under other tracers."""
    while isinstance(leaf, jax.core.Tracer):
        if type(leaf).__name__ == "LinearizeTracer":  # JAX does not export this type
            return True
        leaf = getattr(leaf, "primal", getattr(leaf, "val", None))
    return False


def is_sharded(tree: PyTree) -> bool:
    """Whether a leaf is split over an explicit mesh axis, so that its axes cannot be merged."""
    specs = [jax.typeof(leaf).sharding.spec for leaf in jax.tree.leaves(tree)]
    return any(axis is not None for spec in specs for axis in spec)


def as_arrays(tree: PyTree) -> PyTree:
    """Turns NumPy arrays and Python scalars into JAX arrays without weak types.

    A weakly typed first carry would make the second call of a jitted function a new trace.
    """

    def as_array(leaf: Any) -> jax.Array:
        if is_key(leaf):
            return leaf
        array = jnp.asarray(leaf)
        return jax.lax.convert_element_type(array, array.dtype)

    return jax.tree.map(as_array, tree)


def partition(tree: PyTree) -> tuple[PyTree, PyTree]:
    """Splits a tree into its differentiable leaves and the rest, each with None in the gaps."""
    leaves, treedef = jax.tree.flatten(tree)
    differentiable = [leaf if is_inexact(leaf) else None for leaf in leaves]
    rest = [None if is_inexact(leaf) else leaf for leaf in leaves]
    return treedef.unflatten(differentiable), treedef.unflatten(rest)


def combine(differentiable: PyTree, rest: PyTree) -> PyTree:
    """The inverse of `partition`. None may also stand in place of a subtree."""
    return jax.tree.map(lambda x, y: y if x is None else x, differentiable, rest, is_leaf=_is_none)


def where_given(like: PyTree, tree: PyTree) -> PyTree:
    """The tree with None where `like` has None in place of a leaf or of a subtree."""
    return jax.tree.map(lambda x, y: None if x is None else y, like, tree, is_leaf=_is_none)


def _is_none(node: Any) -> bool:
    return node is None


def align(flags: jax.Array, leaf: jax.Array) -> jax.Array:
    """Gives `flags` (a scalar, or one per row) the rank of `leaf`, whose first axis is rows."""
    if flags.ndim == 0:
        return flags
    return jnp.reshape(flags, flags.shape + (1,) * (leaf.ndim - flags.ndim))


def select(flags: jax.Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """Leaf by leaf `jnp.where(flags, on_true, on_false)`, flags a scalar or one per row.

    With flags per row, a leaf without rows is that of `on_true`.
    """
    return jax.tree.map(lambda yes, no: _select_leaf(flags, yes, no), on_true, on_false)


def replace(flags: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    """`select(flags, new, old)`, except that `old` stays where `new` is None.

    None stands for a leaf or for a subtree. This is how a reset replaces the carry by the initial
    carry, and how the first carry of a pass replaces the last one of the pass before.
    """

    def of_leaf(new: Any, old: Any) -> Any:
        return old if new is None else _select_leaf(flags, new, old)

    return jax.tree.map(of_leaf, new, old, is_leaf=_is_none)


def kept(new: PyTree, old: PyTree) -> list[Any]:
    """The leaves of `old` that `replace` leaves as they are, because `new` is None there."""

    def of_leaf(new: Any, old: Any) -> list[Any]:
        return jax.tree.leaves(old) if new is None else []

    return jax.tree.leaves(jax.tree.map(of_leaf, new, old, is_leaf=_is_none))


def _select_leaf(flags: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    return yes if flags.ndim > yes.ndim else jnp.where(align(flags, yes), yes, no)


def index(tree: PyTree, step: jax.Array | int) -> PyTree:
    """`leaf[step]` for every leaf of a time-major tree; `step` may be traced."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, step, keepdims=False), tree)


def update(buffers: PyTree, tree: PyTree, step: jax.Array) -> PyTree:
    """`buffer[step] = leaf` for every leaf, in place under jit."""
    return jax.tree.map(
        lambda buffer, x: jax.lax.dynamic_update_index_in_dim(buffer, x, step, 0), buffers, tree
    )


def gather(tree: PyTree, steps: jax.Array) -> PyTree:
    """`leaf[steps]` for every leaf of a time-major tree; beyond the end, the last one."""
    return jax.tree.map(lambda leaf: leaf.at[steps].get(mode="clip"), tree)


def slice_steps(tree: PyTree, first: jax.Array, count: int) -> PyTree:
    """`leaf[first : first + count]` for every leaf of a time-major tree; `first` may be traced."""
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_slice_in_dim(jnp.asarray(leaf), first, count), tree
    )


def repeat(tree: PyTree, n: int) -> PyTree:
    """Every leaf n times, `[n, ...]`."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n, *leaf.shape)), tree)


def nan_where(flag: jax.Array, tree: PyTree) -> PyTree:
    """NaN in every entry if `flag` is True, else the tree: for what must not pass for a result.

    With a flag per row, the entries of a row.
    """
    return select(flag, jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), tree), tree)


def zeros_like(tree: PyTree) -> PyTree:
    """Zeros like every leaf."""
    return jax.tree.map(jnp.zeros_like, tree)


def zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """Zeros like an abstract leaf, sharded like it, and on each device where it differs."""
    array = jnp.zeros(leaf.shape, leaf.dtype, out_sharding=leaf.sharding)
    return _devices.on_each(array, _devices.varying(leaf))


def at_least_float32(dtype: Any) -> Any:
    """The dtype of sums and gates: `dtype`, or float32 where that is narrower."""
    dtype = jnp.dtype(dtype)
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def widened(tree: PyTree) -> PyTree:
    """The tree with its floats that are narrower than float32 as float32."""

    def of_leaf(leaf: Any) -> Any:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize >= 4:
            return leaf
        return jnp.asarray(leaf, jnp.float32)

    return jax.tree.map(of_leaf, tree)


def astype(tree: PyTree, like: PyTree) -> PyTree:
    """The tree in the dtypes of the leaves of `like`."""
    return jax.tree.map(lambda leaf, other: leaf.astype(other.dtype), tree, like)


def zero_sums(tree: PyTree) -> PyTree:
    """Zeros to accumulate leaves like those of `tree` in, float32 or wider."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=at_least_float32(x.dtype)), tree)


def accumulate(sums: PyTree, tree: PyTree) -> PyTree:
    """`sums + tree`, in the dtype of the sums."""
    return jax.tree.map(lambda total, leaf: total + leaf.astype(total.dtype), sums, tree)
