"""Renewal theory of segments: the probability of each age at a step, and its share of variance.

Let k be the age at step u (1 at the first step of a segment), and q_j the probability that a
segment begins at step j. The probability of age k at step u is p_u(k) = S(k−1) · q_{u−k+1}. With
v_u(k) = A/S(k−1) and A = Σ_{m<k} S(k−1−m) G_{u,m} as in `artbp.diagnostics.variance`,

    p_u(k) · c(k)/(1 − c(k)) · v vᵀ = q_{u−k+1} · c(k)/S(k) · A Aᵀ

and the right-hand side involves no difference of large numbers.
"""

import numpy as np

from artbp.truncation.base import TruncationLaw, check_law


def renewal_weights(law: TruncationLaw, num_steps: int) -> tuple[np.ndarray, ...]:
    """Computes the weights for a stream of T steps, which has gates behind steps 1, …, T − 1.

    Returns:
      (S(k−1), √(c(k)/S(k)), √q_k), NumPy float64, for ages k = 1, 2, ….

    Raises:
      TypeError: law is not a `TruncationLaw`.
      ValueError: c(k) = 1 for a k < T.
    """
    check_law(law)
    ages = np.arange(1, max(num_steps, 2))
    hazard = np.asarray(law.hazard(ages))
    certain = hazard[: num_steps - 1] >= 1
    if np.any(certain):
        raise ValueError(
            f"law={law!r} has c({np.argmax(certain) + 1}) = 1 within the {num_steps} steps of the "
            "stream. A certain boundary adds a bias, not a variance. Use a law that can outlive "
            "the stream; for TBPTT compare mean gradients."
        )
    survival = np.concatenate([[1.0], law.survival(ages)])
    with np.errstate(divide="ignore"):  # a survival below float64: see `root_variances`
        root_weight = np.sqrt(hazard / survival[1:])
    # The renewal equation for q_1, q_2, …
    ends = survival[:-1] - survival[1:]  # P(length = n), n = 1, 2, …
    begins = np.ones(len(ends))
    for j in range(1, len(begins)):
        begins[j] = begins[:j] @ ends[j - 1 :: -1]
    return survival[:-1], root_weight, np.sqrt(begins)


def root_variances(weights: tuple[np.ndarray, ...], lag_gradients: np.ndarray) -> np.ndarray:
    """Computes √(p_u(k)·c(k)/(1 − c(k))) · v_u(k) for k = 1, …, u; its squares are variances.

    Args:
      lag_gradients: G_{u,m}, or any linear function of it, for m = 0, …, u − 1: `[u, ...]`.

    Returns:
      float64 `[u, ...]`; infinite where it exceeds float64, never NaN for finite input.
    """
    u, (survival, root_weight, root_begin) = len(lag_gradients), weights
    lag = np.subtract.outer(np.arange(u), np.arange(u))
    sums = np.where(lag >= 0, survival[np.maximum(lag, 0)], 0.0) @ lag_gradients.reshape(u, -1)
    root_weight = root_weight[:u] * root_begin[:u][::-1]
    with np.errstate(over="ignore", invalid="ignore"):
        # S(k) may be 0 in float64 at ages that contribute nothing: there 0 · ∞ means 0.
        scaled = np.where(sums == 0, 0.0, root_weight[:, None] * sums)
    return scaled.reshape(lag_gradients.shape)
