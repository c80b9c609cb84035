"""Where each gradient estimator settles when the loss cannot vanish, in closed form.

The drive is x_t = 1 + σ ε_t with independent ε_t of mean 0 and variance 1. With θ held, in the long
run, s_t[0] = θ Z_t with Z_t = Σ_j a_j x_{t−j} and a_j = `system.influence`. This is a regression:

    E ½ (θ Z − 1)²    =>    θ* = E[Z] / E[Z²] = Σ a / ((Σ a)² + σ² Σ a²),    loss > 0 there.

Without compensation, the gradient of a loss at age k of its segment sees the last k delays only,
Z^(k)_t = Σ_{j<k} a_j x_{t−j}: its expectation is E[(θ Z − 1) Z^(k)]. Ages occur in proportion to
the survival S(k − 1) (with a fixed length K: ages 1 to K equally). With the means of
h(k) = Σ_{j<k} a_j and V(k) = Σ_{j<k} a_j² under these weights,

    expected gradient(θ) = θ · slope − h̄,     slope = h̄ Σ a + σ² V̄,     settles at h̄ / slope,

provided that slope > 0; otherwise θ runs away at every rate. With compensation every delay has mean
weight one: h̄ = Σ a, V̄ = Σ a², and the fixed point is the optimum. Independent noise on the target
would not show a bias: every fixed point stays at θ* = 1 / Σ a. The noise has to move the state.
"""

from typing import NamedTuple

import numpy as np

from experiments.common.arms import Arm
from experiments.influence_balancing import system

_NUM_AGES = 4000  # influences have decayed, and the survival of these laws is below 1e-6


class FixedPoint(NamedTuple):
    """Where the expected gradient vanishes, and its derivative there; stable if that is above 0."""

    theta: float
    slope: float

    @property
    def stable(self) -> bool:
        return self.slope > 0


def optimum(drive_noise: float) -> float:
    """θ* of the stationary loss under a drive of standard deviation `drive_noise`."""
    return _fixed_point(*_whole_influence(), drive_noise).theta


def fixed_point(arm: Arm, drive_noise: float) -> FixedPoint:
    """Where `arm` settles, with decreasing rates, and whether it does."""
    if arm.claims.unbiased:
        return _fixed_point(*_whole_influence(), drive_noise)
    assert arm.law is not None
    influences, weights = system.influence(_NUM_AGES), arm.law.survival(np.arange(_NUM_AGES))
    weights = weights / weights.sum()
    mean_h = float(weights @ np.cumsum(influences))
    mean_v = float(weights @ np.cumsum(influences**2))
    return _fixed_point(mean_h, mean_v, drive_noise)


def expected_loss(theta: np.ndarray, drive_noise: float) -> np.ndarray:
    """½ E[(θ Z − 1)²], the loss per step with θ held."""
    h, v = _whole_influence()
    mean_square = h**2 + drive_noise**2 * v
    return 0.5 * (np.square(theta) * mean_square - 2.0 * system.TARGET * theta * h + 1.0)


def _whole_influence() -> tuple[float, float]:
    influences = system.influence(_NUM_AGES)
    return float(influences.sum()), float(np.square(influences).sum())


def _fixed_point(mean_h: float, mean_v: float, drive_noise: float) -> FixedPoint:
    slope = mean_h * system.STATIONARY_GAIN + drive_noise**2 * mean_v
    return FixedPoint(theta=system.TARGET * mean_h / slope, slope=slope)
