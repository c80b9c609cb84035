"""The arguments of an unroll, checked and completed."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.padding import check_lengths_of_rows, of_real_steps
from artbp.unrolls.checks import Cell, check_cell, check_flags, check_raw_keys


class Arguments(NamedTuple):
    """The arguments of `unroll` that are arrays."""

    params: Any
    carry: Any
    xs: Any
    gates: jax.Array | None
    resets: jax.Array | None
    initial_carry: Any
    lengths: jax.Array | None


def check_arguments(cell: Cell, given: Arguments) -> tuple[Arguments, int]:
    """Returns the arguments as JAX arrays, with an initial carry, and the number of steps.

    Raises:
      ValueError, TypeError: as `unroll` says.
    """
    params, carry, xs, gates, resets, initial_carry, lengths = given
    carry = as_carry(carry)
    gates = as_gates(gates)
    resets = None if resets is None else numeric("resets", resets, "flags, [T] or [T, B]")
    check_flags("resets", resets)
    check_numeric("xs", xs)
    num_steps = _num_steps(xs, gates, resets)
    lengths = None if lengths is None else _as_lengths(lengths, num_steps)
    if resets is not None:
        initial_carry = complete_initial_carry(carry, initial_carry)
    check_rows(carry, xs, gates, resets, lengths, initial_carry)
    if num_steps:
        check_cell(cell, params, carry, jax.eval_shape(lambda: _tree.index(xs, 0)))
    return Arguments(params, carry, xs, gates, resets, initial_carry, lengths), num_steps


def numeric(name: str, value: Any, expected: str) -> jax.Array:
    """`value` as an array; raises TypeError unless it holds numbers or flags."""
    try:
        array = _tree.one_array(value)
    except (TypeError, ValueError):  # lists of different lengths, or with texts
        array = None
    if not _tree.is_numeric(array):
        raise TypeError(f"{name} is {value!r}; expected {expected}. Pass an array of numbers.")
    return jnp.asarray(array)


def as_gates(gates: Any) -> jax.Array | None:
    """The gates as an array, or None.

    Raises:
      TypeError: they are not real numbers.
    """
    if gates is None:
        return None
    gates = numeric("gates", gates, "floats, [T] or [T, B]")
    if jnp.issubdtype(gates.dtype, jnp.complexfloating):
        raise TypeError(
            f"gates has dtype {gates.dtype}; expected real floats. A gate multiplies a cotangent "
            "by a real number: pass gates.real."
        )
    return gates


def as_carry(carry: Any) -> Any:
    """The carry as JAX arrays.

    Raises:
      TypeError: a leaf is neither an array nor a number.
    """
    check_numeric("carry", carry)
    return _tree.as_arrays(carry)


def check_numeric(name: str, tree: Any) -> None:
    """Raises TypeError unless every leaf is an array that JAX can hold, or a number."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(leaf, (bool, int, float, complex)) and not _tree.is_numeric(leaf):
            raise TypeError(
                f"{name}{jax.tree_util.keystr(path)} is {leaf!r}; expected an array of numbers. "
                "Pass a pytree of arrays, and encode texts as numbers."
            )


def _as_lengths(lengths: Any, num_steps: int) -> jax.Array:
    """The lengths of rows as int32.

    Raises:
      ValueError: they are not integers `[B]`, or known and not between 0 and T.
    """
    given = _tree.one_array(lengths)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise ValueError(
            f"lengths has shape {given.shape} and dtype {given.dtype}; expected integers, [B]. "
            "Pass the number of steps of each row."
        )
    check_lengths_of_rows(given, num_steps)
    return jnp.asarray(given).astype(jnp.int32)


def first_step(
    carry: Any,
    xs: Any,
    resets: jax.Array | None,
    initial_carry: Any,
    lengths: jax.Array | None,
    reverse: bool = False,
) -> Any:
    """(the carry that enters the first step, its x), which nothing flows back to.

    A row is given these at the steps beyond its length. Such steps still pass through the
    derivative of the cell, where 0 · NaN is NaN; on a carry and an input of a real step the cell is
    finite. A row without steps is given an input of the longest row.

    Args:
      lengths: int `[B]`, the number of steps of each row; None: T for all.
      reverse: whether the first step of a row is its step lengths[b] − 1, and not step 0.
    """
    steps = jnp.maximum(lengths - 1, 0) if reverse and lengths is not None else None

    def at_first(leaf: Any) -> Any:
        if steps is None:
            return _tree.index(leaf, 0)
        leaf = jnp.asarray(leaf)
        return leaf[steps] if leaf.ndim == 1 else leaf[steps, jnp.arange(steps.shape[0])]

    def first_x(leaf: Any) -> Any:
        if jnp.ndim(leaf) == 1:  # shared by all rows
            return _tree.index(leaf, 0)
        return at_first(leaf) if lengths is None else of_real_steps(at_first(leaf), lengths)

    if resets is not None:
        carry = _tree.replace(at_first(resets), initial_carry, carry)
    return lax.stop_gradient((carry, jax.tree.map(first_x, xs)))


def _num_steps(xs: Any, gates: jax.Array | None, resets: jax.Array | None) -> int:
    """T, agreed on by all arrays."""
    named = {"xs": xs, "gates": gates, "resets": resets}
    found: dict[str, int] = {}
    for name, tree in named.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            label = name + jax.tree_util.keystr(path)
            if not jnp.shape(leaf):
                raise ValueError(f"{label} is a scalar; expected an array of shape [T, ...].")
            found[label] = jnp.shape(leaf)[0]
    if not found:
        raise ValueError(
            "xs is None and neither gates nor resets were given, so the number of steps is "
            "unknown. Pass gates=jnp.ones(T) to run T steps without input."
        )
    if len(set(found.values())) > 1:
        raise ValueError(f"The arrays disagree about the number of steps T: {found}.")
    return next(iter(found.values()))


def check_rows(
    carry: Any,
    xs: Any,
    gates: jax.Array | None = None,
    resets: jax.Array | None = None,
    lengths: jax.Array | None = None,
    initial_carry: Any = None,
) -> None:
    """Checks that row-wise arguments find rows: a leading axis B on the leaves that they act on.

    Gates act on the float leaves of the carry, resets on those that `initial_carry` replaces, and
    lengths on all leaves.

    Raises:
      ValueError: they do not, or have another rank than `[T]` or `[T, B]`.
    """
    rows: dict[str, int] = {}
    for name, array in (("gates", gates), ("resets", resets)):
        if array is not None and array.ndim > 2:
            raise ValueError(f"{name} has shape {array.shape}; expected [T] or [T, B].")
        if array is not None and array.ndim == 2:
            rows[name] = array.shape[1]
    if lengths is not None:
        rows["lengths"] = lengths.shape[0]
        check_raw_keys(carry)
    if resets is not None:
        check_raw_keys(initial_carry)
    if not rows:
        return
    acted_on = []
    if lengths is not None:
        acted_on.append(carry)
    if "resets" in rows:
        acted_on.append(initial_carry)
    if "gates" in rows:
        acted_on.append(_tree.partition(carry)[0])
    for path, leaf in itertools.chain(*map(jax.tree_util.tree_leaves_with_path, acted_on)):
        if leaf.ndim == 0:
            raise ValueError(
                f"carry{jax.tree_util.keystr(path)} is a scalar, but {', '.join(rows)} differ by "
                "row; expected every leaf of the carry that they act on to be [B, ...]. Resets do "
                "not act on leaves for which initial_carry is None."
            )
        rows["carry" + jax.tree_util.keystr(path)] = leaf.shape[0]
    if lengths is not None:
        for path, leaf in jax.tree_util.tree_leaves_with_path(xs):
            if jnp.ndim(leaf) > 1:
                rows["xs" + jax.tree_util.keystr(path)] = jnp.shape(leaf)[1]
    if len(set(rows.values())) > 1:
        raise ValueError(f"The arrays disagree about the number of rows B: {rows}.")


def complete_initial_carry(carry: Any, initial_carry: Any) -> Any:
    """The carry after a reset, for `_tree.replace`: zeros by default, the given value for keys.

    Where it is None, in place of a leaf or of a subtree, resets leave the carry as it is.
    """
    if initial_carry is None:
        return jax.tree.map(lambda x: x if _tree.is_key(x) else jnp.zeros_like(x), carry)
    check_numeric("initial_carry", initial_carry)
    initial_carry = _tree.as_arrays(initial_carry)
    check_carry_type("initial_carry is", initial_carry, carry, "a reset is to leave as they are")
    return initial_carry


def check_carry_type(subject: str, given: Any, carry: Any, missing: str) -> None:
    """Raises ValueError unless `given` is of the carry's type, except where it is None.

    Args:
      subject: the beginning of the message.
      given, carry: arrays, or their shapes and dtypes.
      missing: what is said of the parts that are None.
    """
    found, expected = (jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (given, carry))
    try:
        fits = found == _tree.where_given(given, expected)
    except ValueError:  # another structure
        fits = False
    if not fits:
        raise ValueError(
            f"{subject} {found}; expected the carry's type, {expected}, or None in place of the "
            f"parts that {missing}."
        )
