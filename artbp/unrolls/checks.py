"""Checks of arguments: errors that name the argument and the remedy, before XLA fails on it."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp import _tree

Cell = Callable[[Any, Any, Any], tuple[Any, Any]]


def check_cell(cell: Cell, params: Any, carry: Any, x: Any) -> Any:
    """Checks by abstract evaluation that `cell` keeps the carry's structure, shapes and dtypes.

    Args:
      cell, params, carry, x: as one step would call them; arrays or `jax.ShapeDtypeStruct`s.

    Returns:
      The shapes and dtypes of y, as a tree of `jax.ShapeDtypeStruct`.

    Raises:
      TypeError: `cell` does not return a pair (carry, y).
      ValueError: the returned carry differs from the one given.
    """
    result = jax.eval_shape(cell, params, carry, x)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(
            f"The cell returned {type(result).__name__}; expected a pair (carry, y), as in "
            "cell(params, carry, x) -> (carry, y)."
        )
    new_carry, y = result
    given, returned = jax.tree.structure(carry), jax.tree.structure(new_carry)
    if given != returned:
        raise ValueError(
            f"The cell changed the structure of the carry: given {given}, returned {returned}. "
            "Return a carry built like the one that came in."
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(carry), jax.tree.leaves(new_carry), strict=True)
    for (path, before), after in pairs:
        before_type = (tuple(before.shape), before.dtype)
        after_type = (tuple(after.shape), after.dtype)
        if before_type != after_type:
            raise ValueError(
                f"The cell changed the carry at carry{jax.tree_util.keystr(path)}: given shape "
                f"{before_type[0]} and dtype {before_type[1]}, returned shape {after_type[0]} and "
                f"dtype {after_type[1]}. Start from a carry of the type that the cell returns."
            )
    return y


def check_resets(carry: Any, resets: Any) -> None:
    """Raises ValueError unless `resets` is None, `[T]`, or `[T, B]` with B rows in the carry."""
    if resets is None or jnp.ndim(resets) == 1:
        return
    shape = jnp.shape(resets)
    for path, leaf in jax.tree_util.tree_leaves_with_path(carry):
        if len(shape) != 2 or jnp.shape(leaf)[:1] != shape[1:]:
            raise ValueError(
                f"resets has shape {shape} and carry{jax.tree_util.keystr(path)} "
                f"{jnp.shape(leaf)}; expected resets of shape [T], or [T, B] with every leaf of "
                "the carry [B, ...]."
            )


def check_params(params: Any) -> None:
    """Raises TypeError unless every leaf of `params` is a float or complex array."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not _tree.is_inexact(leaf):
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} has dtype {jnp.result_type(leaf)}: a gradient "
                "exists for float parameters only. Convert it, or pass it to the cell in xs or "
                "through a closure."
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


def check_positive(integer: bool = False, **named: float) -> None:
    """Raises ValueError unless every number that is known is finite and above 0.

    `integer` asks for Python or NumPy integers; a bool is none.
    """
    for name, value in named.items():
        if isinstance(value, jax.core.Tracer):
            continue
        if not np.isfinite(value) or value <= 0 or (integer and not _is_integer(value)):
            kind = "an integer ≥ 1" if integer else "a finite number above 0"
            raise ValueError(f"{name}={value!r}; expected {kind}.")


def _is_integer(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)
