"""The polynomial law of the paper."""

import dataclasses
import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp._checks import check_above
from artbp.truncation.base import InvertibleLaw, as_ages, as_length, check_mean_length

# Lengths up to this one are looked up in a table computed in float64; beyond, the survival is
# inverted in closed form, where its relative error is below 1e-6.
_TABLE = 4096


@dataclasses.dataclass(frozen=True)
class Polynomial(InvertibleLaw):
    """c(k) = (α − 1) / ((α − 2)·L0 + k), with L0 and α. Build with `polynomial`."""

    mean_length: float
    alpha: float

    def __post_init__(self):
        check_mean_length(self.mean_length)
        _check_alpha(self.alpha)
        if self.alpha <= 3:
            warnings.warn(
                f"alpha={self.alpha!r} ≤ 3: the segment length has infinite variance, so memory "
                "and update delay have no typical size. The paper uses 4 and 6.",
                UserWarning,
                stacklevel=4,
            )

    @property
    def _scale(self) -> float:
        return (self.alpha - 2) * self.mean_length

    def hazard(self, k: Any) -> Any:
        return (self.alpha - 1) / (self._scale + as_ages(k))

    def compensation(self, k: Any) -> Any:
        k = as_ages(k)
        # 1/(1 − c) without 1 − c, which would be rounded in float32 where c is close to 1.
        at_age_1 = (self.alpha - 2) * (self.mean_length - 1)
        return (self._scale + k) / (at_age_1 + (k - 1))

    def length_at(self, u: jax.Array) -> jax.Array:
        # length > k  ⟺  u ≤ S(k), so the length is one more than the number of such k.
        table = _survival_table(self)
        from_table = 1 + jnp.searchsorted(-table, -u, side="right").astype(jnp.int32)
        # S(k) = Γ(z + k − p)/Γ(z + k) · const with z = (α − 2)·L0 + 1 and p = α − 1, which is
        # w^−p (1 + O(w^−2)) · const at w = z + k − (p + 1)/2.
        shift = self._scale + 1 - self.alpha / 2
        # The power minus 1: in float32 the power itself is rounded to 1 where α is large.
        power = jnp.expm1(jnp.log(table[-1] / u) * np.float32(1 / (self.alpha - 1)))
        in_tail = _TABLE + jnp.floor(np.float32(_TABLE + shift) * power)
        return jnp.where(u > table[-1], from_table, 1 + as_length(in_tail))


@functools.lru_cache(maxsize=64)
def _survival_table(law: Polynomial) -> np.ndarray:
    """S(1), …, S(_TABLE), float32 of a float64 computation."""
    return law.survival(np.arange(1, _TABLE + 1)).astype(np.float32)


def _check_alpha(alpha: Any) -> None:
    reason = " At 2 and below the mean length is not finite. The paper uses 4 and 6."
    check_above(2, reason, alpha=alpha)


def polynomial(mean_length: float, alpha: float) -> Polynomial:
    """The law of the paper: c(k) = (α − 1) / ((α − 2)·L0 + k).

    The mean length is exactly L0. The survival falls like k^−(α−1), so compensations grow
    polynomially with age; the length has finite variance for α > 3.

    Args:
      mean_length: L0 > 1, in time steps; in windows where `unbiased_tbptt` takes the law.
      alpha: α > 2. The paper uses 4 and 6; up to 3 warns.

    Raises:
      ValueError: mean_length ≤ 1 or alpha ≤ 2.

    Source: Tallec & Ollivier, arXiv 1705.08209, Eq. 14.
    """
    check_mean_length(mean_length)
    _check_alpha(alpha)
    return Polynomial(float(mean_length), float(alpha))
