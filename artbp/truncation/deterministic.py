"""Deterministic laws: boundaries at multiples of K, or none."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from artbp._checks import check_integer
from artbp.truncation.base import LONGEST, InvertibleLaw, as_ages


@dataclasses.dataclass(frozen=True)
class Fixed(InvertibleLaw):
    """c(k) = 1 where k ≥ K, else 0. Build with `fixed`."""

    length: int

    def __post_init__(self):
        object.__setattr__(self, "length", check_length(self.length, "length"))

    def hazard(self, k: Any) -> Any:
        ages = as_ages(k)
        # JAX ages are compared as integers: float32 does not hold all of them beyond 2²⁴.
        is_end = (k if isinstance(k, jax.Array) else ages) >= self.length
        return is_end.astype(ages.dtype)

    def length_at(self, u: jax.Array) -> jax.Array:
        return jnp.full_like(u, self.length, dtype=jnp.int32)


@dataclasses.dataclass(frozen=True)
class Never(InvertibleLaw):
    """c(k) = 0. Build with `never`."""

    def hazard(self, k: Any) -> Any:
        return 0 * as_ages(k)

    def length_at(self, u: jax.Array) -> jax.Array:
        return jnp.full_like(u, LONGEST, dtype=jnp.int32)


def fixed(length: int) -> Fixed:
    """The law with a boundary at every multiple of `length`: truncated BPTT.

    The boundary is sure (c = 1), so its compensation is 0 and the gradient is biased.

    Args:
      length: K ≥ 1, in time steps.

    Raises:
      ValueError: not an integer ≥ 1.
    """
    return Fixed(length)


def never() -> Never:
    """The law without boundaries: full BPTT, one segment per pass of the stream."""
    return Never()


def check_length(length: Any, name: str) -> int:
    """`length` as an int; raises ValueError unless it is an integer ≥ 1 that int32 holds."""
    check_integer(1, **{name: length})
    return int(length)
