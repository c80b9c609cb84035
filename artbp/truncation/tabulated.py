"""A law given by a table of its hazards, age by age."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp._checks import real_array
from artbp.truncation.base import LONGEST, InvertibleLaw, as_ages, as_length


@dataclasses.dataclass(frozen=True)
class Tabulated(InvertibleLaw):
    """c(k) = hazards[k − 1], and the last of them at every later age. Build with `tabulated`."""

    hazards: tuple[float, ...]

    def __post_init__(self):
        expected = "c(1), …, c(n), numbers from 0 to 1"
        table = real_array("hazards", self.hazards, expected)
        if table.ndim != 1 or not table.size:
            raise ValueError(
                f"hazards={self.hazards!r}; expected {expected}, [n] with n ≥ 1. Pass a list of "
                "one number for a constant hazard."
            )
        given = tuple(table.tolist())
        for k, hazard in enumerate(given, start=1):
            if not 0 <= hazard <= 1 or (hazard == 1 and k < len(given)):
                raise ValueError(
                    f"hazards: c({k}) = {hazard}; expected a number in [0, 1), or 1 at the last "
                    "age."
                )
        object.__setattr__(self, "hazards", given)

    def hazard(self, k: Any) -> Any:
        return _at_ages(np.array(self.hazards), k)

    def compensation(self, k: Any) -> Any:
        # In float64, as 1 − c would be rounded in float32 where c is close to 1.
        hazards = np.array(self.hazards)
        sure = hazards == 1
        return _at_ages(np.where(sure, 0.0, 1 / np.where(sure, 1.0, 1 - hazards)), k)

    def length_at(self, u: jax.Array) -> jax.Array:
        # length > k  ⟺  u ≤ S(k), so the length is one more than the number of such k.
        survival = self.survival(np.arange(1, len(self.hazards) + 1)).astype(np.float32)
        in_table = 1 + jnp.searchsorted(-survival, -u, side="right").astype(jnp.int32)
        last = self.hazards[-1]
        if last == 1:
            return in_table
        if last == 0:
            return jnp.where(u > survival[-1], in_table, LONGEST)
        ratio = jnp.log(u / survival[-1]) / np.float32(np.log1p(-last))
        in_tail = as_length(jnp.floor(ratio) + np.float32(1 + len(self.hazards)))
        return jnp.where(u > survival[-1], in_table, in_tail)


def _at_ages(table: np.ndarray, k: Any) -> Any:
    """The entry of each age k, and the last one at every later age."""
    ages = as_ages(k)
    xp = jnp if isinstance(ages, jax.Array) else np
    index = xp.minimum(ages, len(table)).astype(np.int32) - 1
    return xp.asarray(table, ages.dtype)[index]


def tabulated(hazards: Sequence[float]) -> Tabulated:
    """A law given by a table: c(k) for the ages k = 1, …, n, and c(n) at every later age.

    Args:
      hazards: c(1), …, c(n), each in [0, 1). The last may be 1: then no segment is longer
        than n steps. Like every cap on the length, this is biased.

    Raises:
      ValueError: no hazards, or one that is out of range.
    """
    return Tabulated(hazards)  # type: ignore  # which makes it a tuple
