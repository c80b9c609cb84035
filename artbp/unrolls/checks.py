"""Checks of arguments: errors that name the argument and the remedy, before XLA fails on it."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp import _tree
from artbp._checks import check_function
from artbp.stream import Stream

Cell = Callable[[Any, Any, Any], tuple[Any, Any]]

# How to get the params of a module that holds other things too.
_SPLIT = (
    "To split a module, use `params, static = eqx.partition(module, eqx.is_inexact_array)` "
    "(equinox) or `graphdef, params, rest = nnx.split(module, nnx.Param, ...)` (flax.nnx), and "
    "put the parts together again inside the cell."
)


def check_cell(cell: Cell, params: Any, carry: Any, x: Any) -> Any:
    """Checks by abstract evaluation that `cell` keeps the carry's structure, shapes and dtypes.

    Args:
      cell, params, carry, x: as one step would call them; arrays or `jax.ShapeDtypeStruct`s.

    Returns:
      The shapes and dtypes of y, as a tree of `jax.ShapeDtypeStruct`.

    Raises:
      TypeError: `cell` does not return a pair (carry, y).
      ValueError: the returned carry differs from the one given.
      What the cell raises, with a note where the cell is a module of another library, or where x
        and the carry have different numbers of rows.
    """
    check_function(cell=cell)
    try:
        result = jax.eval_shape(cell, params, carry, x)
    except Exception as error:
        _add_note_on_modules(error, cell)
        _add_note_on_rows(error, carry, x)
        raise
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(
            f"The cell returned {type(result).__name__}; expected a pair (carry, y), as in "
            "cell(params, carry, x) -> (carry, y)."
        )
    new_carry, y = result
    change = _change(carry, new_carry)
    if change is None:
        return y
    if _change(carry, y) is None:
        change += (
            " Its second output has the type of the carry. If it returns (y, carry), as haiku's "
            "cells do, return (carry, y) instead."
        )
    raise ValueError(change)


def _add_note_on_modules(error: Exception, cell: Cell) -> None:
    """Adds a note to an error of the cell if it is a module, which `artbp.adapters` would adapt."""
    homes = [base.__module__.split(".") for base in type(cell).__mro__]
    for library in ("nnx", "linen", "haiku", "equinox"):
        if any(library in home[:2] for home in homes):
            error.add_note(
                f"artbp: the cell is a module of {library}, {type(cell).__name__}; expected a "
                f"function cell(params, carry, x) -> (carry, y). artbp.adapters.{library}.adapt "
                "makes one from a module."
            )


def _add_note_on_rows(error: Exception, carry: Any, x: Any) -> None:
    """Adds a note to an error of the cell if batch-first data may be its cause."""
    of_x, of_carry = (
        {leaf.shape[0] for leaf in jax.tree.leaves(tree) if leaf.ndim} for tree in (x, carry)
    )
    if len(of_x) == len(of_carry) == 1 and of_x != of_carry:
        error.add_note(
            f"artbp: the first axis of x at one step has size {of_x.pop()}, and that of the carry "
            f"{of_carry.pop()}. Both are the rows of the batch. Arrays are time-major, "
            "[T, B, ...]: if yours are [B, T, ...], pass xs.swapaxes(0, 1), and targets likewise. "
            "Or start from a carry with as many rows as the data."
        )


def _change(carry: Any, new_carry: Any) -> str | None:
    """How the type of `new_carry` differs from that of `carry`; None if it does not."""
    given, returned = jax.tree.structure(carry), jax.tree.structure(new_carry)
    if given != returned:
        return (
            f"The cell changed the structure of the carry: given {given}, returned {returned}. "
            "Return a carry built like the one that came in."
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(carry), jax.tree.leaves(new_carry), strict=True)
    for (path, before), after in pairs:
        before_type = (tuple(before.shape), before.dtype)
        after_type = (tuple(after.shape), after.dtype)
        if before_type != after_type:
            return (
                f"The cell changed the carry at carry{jax.tree_util.keystr(path)}: given shape "
                f"{before_type[0]} and dtype {before_type[1]}, returned shape {after_type[0]} and "
                f"dtype {after_type[1]}. Start from a carry of the type that the cell returns."
            )
    return None


def check_stream(stream: Any) -> None:
    """Checks that `stream` is a `Stream` of arrays that fit together.

    Raises:
      TypeError: as `check_arrays`; resets that are not bool; a mask that is neither bool nor float.
      ValueError: as `Stream.check_num_steps`.
    """
    check_arrays(stream)
    check_flags("Stream.resets", stream.resets)
    mask = stream.mask
    if mask is not None and not jnp.issubdtype(mask.dtype, jnp.floating):
        check_flags("Stream.mask", mask, " or float, the weights of the losses")
    stream.check_num_steps()


def check_arrays(stream: Any) -> None:
    """Raises TypeError unless `stream` is a `Stream` and all its leaves are arrays."""
    if not isinstance(stream, Stream):
        raise TypeError(
            f"stream is of type {type(stream).__name__}; expected an artbp.Stream. Pass "
            "artbp.Stream(xs, targets)."
        )
    for name in ("xs", "targets", "resets", "mask"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(stream, name)):
            if not hasattr(leaf, "shape"):
                raise TypeError(
                    f"Stream.{name}{jax.tree_util.keystr(path)} is {leaf!r}; expected an array "
                    f"[T, ...]. A list is a tree of its entries: pass numpy.asarray({name})."
                )


def check_flags(name: str, flags: Any, alternative: str = "") -> None:
    """Raises TypeError unless `flags` is None or an array of bool."""
    if flags is not None and flags.dtype != bool:
        raise TypeError(
            f"{name} has dtype {flags.dtype}; expected bool{alternative}. If its entries are 0 and "
            "1, compare them with 0: flags != 0."
        )


def check_raw_keys(carry: Any) -> None:
    """Raises ValueError if a leaf whose rows are acted on is uint32 of the shape of one raw key."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(carry):
        if _tree.is_raw_key(leaf):
            raise ValueError(
                f"carry{jax.tree_util.keystr(path)} is uint32 of shape {leaf.shape}, as a raw key "
                "is. Its words are no rows, and after each reset the same noise would follow; "
                "expected a typed key. Use jax.random.key, jax.random.split for a key in each row, "
                "or int32 for a number in each row. Or let resets leave it as it is, by None in "
                "its place in initial_carry."
            )


def check_resets(initial_carry: Any, resets: Any) -> None:
    """Raises ValueError unless `resets` is None, `[T]`, or `[T, B]` with B rows in what it resets.

    Args:
      initial_carry: as `arguments.complete_initial_carry` returns it.
    """
    if resets is None:
        return
    check_raw_keys(initial_carry)
    if jnp.ndim(resets) == 1:
        return
    shape = jnp.shape(resets)
    for path, leaf in jax.tree_util.tree_leaves_with_path(initial_carry):
        if len(shape) != 2 or jnp.shape(leaf)[:1] != shape[1:]:
            raise ValueError(
                f"resets has shape {shape} and carry{jax.tree_util.keystr(path)} "
                f"{jnp.shape(leaf)}; expected resets of shape [T], or [T, B] with every leaf of "
                "the carry [B, ...]. If resets are to leave a leaf as it is, such as a key or a "
                "counter, it may have any shape: put None in its place in initial_carry."
            )


def check_params(params: Any) -> None:
    """Raises TypeError unless `params` has leaves, and each is a float or complex array."""
    if not jax.tree.leaves(params):
        raise TypeError(
            f"params is {params!r}, which holds no array; expected a pytree of float arrays, the "
            "parameters of cell and loss_fn. Pass those that are to be trained."
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = f"params{jax.tree_util.keystr(path)}"
        is_number = isinstance(leaf, (bool, int, float, complex))
        if not is_number and not _tree.is_numeric(leaf):
            raise TypeError(
                f"{name} is of type {type(leaf).__name__}; expected an array of floats, because "
                f"every leaf of params gets a gradient. {_SPLIT}"
            )
        if not _tree.is_inexact(leaf):
            raise TypeError(
                f"{name} has dtype {jnp.result_type(leaf)}: a gradient exists for float parameters "
                f"only. Convert it, or pass it to the cell in xs or through a closure. {_SPLIT}"
            )


def check_finite(params: Any) -> None:
    """Raises ValueError if a concrete leaf of `params` holds NaN or infinity."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if isinstance(leaf, jax.core.Tracer):
            continue
        with jax.ensure_compile_time_eval():  # concrete params, though perhaps inside a jit
            finite = bool(jnp.isfinite(leaf).all())
        if not finite:
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} holds NaN or infinity, so every gradient "
                "would too. Check the initialisation or the checkpoint that it came from."
            )


def check_carry_from_params(params: Any, **carries: Any) -> None:
    """Looks for leaves of a carry in which a leaf of `params` stands in each row.

    Such a carry was made from the params, but no gradient reaches them through it. Leaves whose
    entries are all equal are passed over: a carry of zeros or ones is no sign of that.

    Raises:
      ValueError: the leaf of `params` is a vector, as a first carry that is to be learned is. Of
        others, such as fast weights, or of a leaf without rows, a warning is given: a copy may be
        meant.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for carry_path, s in jax.tree_util.tree_leaves_with_path(carries):
        if not _tree.is_known(s) or not _tree.is_inexact(s) or not s.size:
            continue
        for path, x in leaves:
            if np.size(x) < 2 or np.shape(x) not in (s.shape, s.shape[1:]):
                continue
            if not _tree.is_known(x):
                continue
            values = np.asarray(x)
            if (values == values.flat[0]).all() or not (np.asarray(s) == values).all():
                continue
            name = carry_path[0].key + jax.tree_util.keystr(carry_path[1:])
            message = (
                f"{name} is params{jax.tree_util.keystr(path)} in each row. Estimators take it as "
                "a constant, so no gradient reaches the params through it. To train a first carry, "
                "use artbp.learned_carry, which makes it inside the cell. "
            )
            if np.ndim(x) == 1 and np.shape(x) == s.shape[1:]:
                raise ValueError(
                    f"{message}If a copy is what you want, give it one more axis in the carry, "
                    "[B, 1, …]."
                )
            warnings.warn(
                f"{message}If a copy is what you want, such as fast weights or an average of "
                "weights, ignore this warning.",
                stacklevel=2,
            )
