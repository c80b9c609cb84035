"""The geometric law: a constant hazard."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp.truncation.base import InvertibleLaw, as_ages, as_length, check_mean_length


@dataclasses.dataclass(frozen=True)
class Geometric(InvertibleLaw):
    """c(k) = 1/L0. Build with `geometric`."""

    mean_length: float

    def __post_init__(self):
        check_mean_length(self.mean_length)

    def hazard(self, k: Any) -> Any:
        return 0 * as_ages(k) + 1 / self.mean_length

    def compensation(self, k: Any) -> Any:
        # In float64, as 1 − c would be rounded in float32 where c is close to 1.
        return 0 * as_ages(k) + self.mean_length / (self.mean_length - 1)

    def length_at(self, u: jax.Array) -> jax.Array:
        # length > k  ⟺  u ≤ S(k) = (1 − 1/L0)^k.
        log_survival = np.float32(np.log1p(-1 / self.mean_length))
        return 1 + as_length(jnp.floor(jnp.log(u) / log_survival))


def geometric(mean_length: float) -> Geometric:
    """The law of constant hazard, c(k) = 1/L0.

    It has the mean of `polynomial` and lighter tails. The price is weights that grow exponentially
    with age: the variance of the gradient explodes once the squared cotangents decay more slowly
    than 1 − 1/L0 per step, that is, for memories beyond about 2·L0.

    Args:
      mean_length: L0 > 1, in time steps; in windows where `unbiased_tbptt` takes the law.

    Raises:
      ValueError: mean_length ≤ 1.
    """
    check_mean_length(mean_length)
    return Geometric(float(mean_length))
