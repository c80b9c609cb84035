"""Checks of single arguments: numbers, flags, functions, keys. Each names what came and the remedy.

A traced value is not known, so its value is not checked. Nothing here adds an operation to a
compiled program.
"""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp import _tree


def check_positive(integer: bool = False, **named: Any) -> None:
    """Raises ValueError unless every number that is known is finite and above 0.

    `integer` requires Python or NumPy integers that int32 holds; a bool is none.
    """
    if integer:
        check_integer(1, **named)
    else:
        check_above(0, **named)


def check_integer(least: int, **named: Any) -> None:
    """Raises ValueError unless every value that is known is an integer from `least` to 2³¹ − 1."""
    for name, value in named.items():
        if isinstance(value, jax.core.Tracer):
            continue
        if not is_integer(value):
            _refuse(name, value, f"an integer ≥ {least}")
        if not least <= operator.index(value) < 2**31:
            above = " and below 2³¹" if operator.index(value) >= 2**31 else ""
            _refuse(name, value, f"an integer ≥ {least}{above}")


def check_number(low: float, high: float, **named: Any) -> None:
    """Raises ValueError unless every number that is known is in [low, high]."""
    for name, value in named.items():
        if not (isinstance(value, jax.core.Tracer) or low <= _as_number(value) <= high):
            _refuse(name, value, f"a number in [{low:g}, {high:g}]")


def check_above(least: float, reason: str = "", **named: Any) -> None:
    """Raises ValueError unless every number that is known is finite and above `least`."""
    for name, value in named.items():
        if not (isinstance(value, jax.core.Tracer) or least < _as_number(value) < np.inf):
            _refuse(name, value, f"a finite number above {least:g}", reason)


def as_divisor(value: Any) -> Any:
    """A known integer as a float: JAX has no integers from 2³¹ on unless float64 is enabled."""
    return value if isinstance(value, jax.Array) or not is_integer(value) else float(value)


def check_flag(**named: Any) -> None:
    """Raises TypeError unless every value is True or False."""
    for name, value in named.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name}={value!r}; expected True or False.")


def check_function(**named: Any) -> None:
    """Raises TypeError unless every value is callable."""
    for name, value in named.items():
        if not callable(value):
            remedy = {
                "cell": "cell(params, carry, x) -> (carry, y)",
                "loss_fn": "loss_fn(params, y, target) -> losses",
            }.get(name, "it")
            raise TypeError(f"{name} is {value!r}; expected a function. Define {remedy}.")


def check_like_params(name: str, tree: Any, params: Any) -> None:
    """Raises ValueError unless a tree has the structure and the shapes of params."""
    given, expected = (
        (jax.tree.structure(one), [jnp.shape(leaf) for leaf in jax.tree.leaves(one)])
        for one in (tree, params)
    )
    if given != expected:
        raise ValueError(
            f"{name} has the structure {given[0]} and the shapes {given[1]}; expected those of "
            f"params, {expected[0]} and {expected[1]}."
        )


def hashable(function: Any) -> Any:
    """The function itself; wrapped anew, so compiled anew, where it has no hash for `jit`."""
    try:
        hash(function)
    except TypeError:
        return functools.partial(function)
    return function


def check_key(rng_key: Any, name: str = "rng_key") -> None:
    """Raises TypeError unless `rng_key` is one key, typed or raw; ValueError for several keys."""
    if _tree.is_key(rng_key):
        shape = rng_key.shape
    elif getattr(rng_key, "dtype", None) == jnp.uint32 and np.ndim(rng_key):
        shape = np.shape(rng_key)[:-1]
        if np.shape(rng_key)[-1:] != _tree.raw_key_shape():
            raise TypeError(
                f"{name} is uint32 of shape {np.shape(rng_key)}; expected a key, such as "
                "jax.random.key(0)."
            )
    else:
        raise TypeError(f"{name} is {rng_key!r}; expected a key. Pass jax.random.key(0).")
    if shape:
        raise ValueError(
            f"{name} holds keys of shape {shape}; expected one key. Pass {name}[0], or use "
            "jax.vmap over the keys."
        )


def real_array(name: str, value: Any, expected: str) -> np.ndarray:
    """`value` in float64; raises ValueError unless it holds real numbers."""
    try:
        given = np.asarray(value)
        if given.dtype == bool or not np.issubdtype(jnp.result_type(given), jnp.number):
            raise TypeError
        if np.iscomplexobj(given):
            raise TypeError
        return given.astype(np.float64)
    except (TypeError, ValueError):  # None, a text, complex numbers, lists of different lengths
        raise ValueError(
            f"{name}={value!r}; expected {expected}. Pass an array of real numbers."
        ) from None


def is_integer(value: Any) -> bool:
    """Whether `value` is a Python or NumPy integer, or an integer array without axes."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, (bool, np.bool_))


def _as_number(value: Any) -> float:
    """`value` as a float; NaN where it is no real number."""
    if isinstance(value, (bool, np.bool_, str, bytes)) or np.ndim(value):
        return np.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):  # None, a complex number, a text
        return np.nan


def _refuse(name: str, value: Any, expected: str, reason: str = "") -> None:
    remedy = " Pass a number in place of None." if value is None else ""
    if isinstance(value, (str, bytes)):
        remedy = " Pass a number in place of a text."
    elif isinstance(value, (bool, np.bool_)):
        remedy = " A bool is no number."
    elif isinstance(value, float) and "integer" in expected and np.isfinite(value):
        remedy = f" Pass int({name})." if value.is_integer() else " Round it."
    elif np.ndim(value):
        remedy = " Pass one number."
    raise ValueError(f"{name}={value!r}; expected {expected}.{reason}{remedy}")
