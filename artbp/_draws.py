"""Detects random draws that `jax.vmap` changes.

Only keys of threefry give the same numbers under `jax.vmap` as one by one.
"""

import re
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

# How a program prints draws by keys, the types of its keys, and draws without a typed key.
_DRAW = re.compile(r"\brandom_(bits|gamma)\b")
_KEY, _THREEFRY = re.compile(r"\bkey<([^>]+)>"), "fry"
_KEYLESS_DRAW = re.compile(r"\brng_(bit_generator|uniform)\b")


def draws_alike_under_vmap(key: Any) -> bool:
    """Whether this key, typed or raw, gives the same numbers under `jax.vmap` as alone."""
    return str(jax.random.key_impl(key)) == "threefry2x32"


def vmap_changes_draws(program: ClosedJaxpr) -> bool:
    """Whether `jax.vmap` may change the random numbers that a program draws.

    If so, a backward pass under `jax.vmap` sees other noise than the forward pass.
    """
    text = str(program)
    has_other_keys = bool(set(_KEY.findall(text)) - {_THREEFRY})
    return bool(_KEYLESS_DRAW.search(text)) or (has_other_keys and bool(_DRAW.search(text)))
