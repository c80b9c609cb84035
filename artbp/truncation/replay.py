"""A chosen pattern of boundaries in place of drawn ones."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp._checks import real_array
from artbp.truncation.base import TruncationLaw, as_ages, check_draw, check_law


@dataclasses.dataclass(frozen=True, eq=False)
class Replay(TruncationLaw):
    """Segment i has length lengths[i mod n]. Build with `replay`."""

    lengths: Any
    law: TruncationLaw | None = None

    def __post_init__(self):
        if self.law is not None:
            check_law(self.law)
        if isinstance(self.lengths, jax.core.Tracer):
            return
        given = real_array("lengths", self.lengths, "one or more integers, [n]")
        if given.ndim != 1 or not given.size or (given != np.floor(given)).any():
            raise ValueError(f"lengths={self.lengths!r}; expected one or more integers, [n].")
        if given.min() < 1 or given.max() >= 2**31:
            raise ValueError(f"lengths={self.lengths!r}; expected every length in 1, …, 2³¹ − 1.")
        object.__setattr__(self, "lengths", given.astype(np.int64))

    def hazard(self, k: Any) -> Any:
        return 0 * as_ages(k) if self.law is None else self.law.hazard(k)

    def sample_length(self, rng_key: jax.Array, limit: Any = None) -> jax.Array:
        return self.length_of(rng_key, 0, limit)

    def length_of(self, rng_key: jax.Array, n: Any, limit: Any = None) -> jax.Array:
        check_draw(rng_key, limit)
        lengths = jnp.asarray(self.lengths, jnp.int32)
        length = lengths[jnp.asarray(n, jnp.int32) % lengths.shape[0]]
        return length if limit is None else jnp.minimum(length, jnp.asarray(limit, jnp.int32))


def replay(lengths: Sequence[int] | jax.Array, law: TruncationLaw | None = None) -> Replay:
    """Drives an estimator along a chosen pattern of boundaries.

    Segment i has length lengths[i]; after the last length the list starts again. With the patterns
    of a short sequence and their probabilities, this enumerates an estimator.

    Args:
      lengths: integers ≥ 1, `[n]`; may be a traced array, for `jax.vmap` over patterns with
        policy="dynamic".
      law: the law whose `compensation` is the gate of the steps between boundaries, as if it had
        drawn the pattern. Default: gate 1 between boundaries.

    Raises:
      TypeError: law is not a `TruncationLaw`.
      ValueError: no lengths, or lengths that are not integers ≥ 1.
    """
    return Replay(lengths, law)
