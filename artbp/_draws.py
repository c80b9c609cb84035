"""Random numbers under `jax.vmap`: only threefry's keys draw there what they draw one by one."""

import re
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

from artbp import _tree

# The primitives by which `jax.random` draws, and the name of threefry in the type of a key.
_DRAW = re.compile(r"\brandom_(bits|gamma)\b")
_KEY, _THREEFRY = re.compile(r"\bkey<(\w+)>"), "fry"


def draws_alike_under_vmap(key: Any) -> bool:
    """Whether a key, typed or raw, draws under `jax.vmap` what it draws alone."""
    key = key if _tree.is_key(key) else jax.random.key(0)  # a raw one is of JAX's default kind
    return str(jax.random.key_impl(key)) == "threefry2x32"


def vmap_changes_draws(program: ClosedJaxpr) -> bool:
    """Whether `jax.vmap` may change the random numbers that a program draws.

    Two passes over the same steps, one of them under `jax.vmap`, would then see different noise.
    """
    text = str(program)
    return bool(_DRAW.search(text)) and bool(set(_KEY.findall(text)) - {_THREEFRY})
