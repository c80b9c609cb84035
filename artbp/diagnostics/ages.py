"""How old segments are along a stream, and what a boundary behind a step then costs.

With k the age at step u (1 at the first step of a segment) and P(begin at j) the probability that a
segment begins at step j,

    p_u(k) = S(k−1) · P(begin at u−k+1),     P(begin at 1) = 1

and what entered at age i has passed gates of product S(i−1)/S(k−1) when it reaches the gate behind
u. So with v_u(k) = A/S(k−1), A = Σ_{m<k} S(k−1−m) G_{u,m},

    p_u(k) · c(k)/(1 − c(k)) · v vᵀ = P(begin at u−k+1) · c(k)/S(k) · A Aᵀ

which takes no difference of large numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from artbp.truncation.base import TruncationLaw, check_law


class AgeWeights(NamedTuple):
    """What the variance needs of a law; NumPy float64, for ages k = 1, 2, …

    Attributes:
      survival: S(k−1).
      root_weight: √(c(k)/S(k)).
      root_begin: √P(a segment begins at step k).
    """

    survival: np.ndarray
    root_weight: np.ndarray
    root_begin: np.ndarray


def age_weights(law: TruncationLaw, num_steps: int) -> AgeWeights:
    """The weights for a stream of T steps, whose gates sit behind the steps 1, …, T − 1.

    Raises:
      TypeError: law is not a `TruncationLaw`.
      ValueError: c(k) = 1 for a k < T.
    """
    check_law(law)
    ages = np.arange(1, max(num_steps, 2))
    hazard = np.asarray(law.hazard(ages))
    sure = hazard[: num_steps - 1] >= 1
    if np.any(sure):
        raise ValueError(
            f"law={law!r} has c({np.argmax(sure) + 1}) = 1 within the {num_steps} steps of the "
            "stream: a sure boundary cuts the same flow every time, which is a bias, not a "
            "variance. Take a law that can outlive the stream; for TBPTT compare mean gradients."
        )
    survival = np.concatenate([[1.0], law.survival(ages)])
    with np.errstate(divide="ignore"):  # a survival below float64: see `scaled_by_age`
        root_weight = np.sqrt(hazard / survival[1:])
    return AgeWeights(survival[:-1], root_weight, np.sqrt(_begin_probabilities(survival)))


def scaled_by_age(weights: AgeWeights, parts: np.ndarray) -> np.ndarray:
    """√(p_u(k)·c(k)/(1 − c(k))) · v_u(k) for the ages k = 1, …, u: its squares are the variance.

    Args:
      parts: G_{u,m}, or anything linear in it, for m = 0, …, u − 1: float64 `[u, ...]`.

    Returns:
      `[u, ...]`, infinite where it is beyond float64, never NaN for finite parts.
    """
    u = len(parts)
    lag = np.arange(u)[:, None] - np.arange(u)[None, :]
    survival = np.where(lag >= 0, weights.survival[np.maximum(lag, 0)], 0.0)
    sums = survival @ parts.reshape(u, -1)
    root_weight = weights.root_weight[:u] * weights.root_begin[:u][::-1]
    with np.errstate(over="ignore", invalid="ignore"):
        # Where S(k) is 0 in float64 and nothing comes from so far back, 0 · ∞ means 0.
        scaled = np.where(sums == 0, 0.0, root_weight[:, None] * sums)
    return scaled.reshape(parts.shape)


def _begin_probabilities(survival: np.ndarray) -> np.ndarray:
    """P(a segment begins at step j), j = 1, 2, …: the renewal equation, from S(0), S(1), …"""
    ends = survival[:-1] - survival[1:]  # P(length = n), n = 1, 2, …
    begins = np.zeros(len(ends))
    begins[0] = 1.0
    for j in range(1, len(begins)):
        begins[j] = begins[:j] @ ends[j - 1 :: -1]
    return begins
