"""The variance of ARTBP per time step of a long stream, in closed form.

Let G_m be the gradient that the cotangent at a step adds through the params used m steps before
(m = 0: that step itself), in a stationary stream. The estimate is the BPTT gradient plus a
martingale difference (gate − 1)·v for each step, with v the gradient through its gate. Let k be the
age of the step and S the survival. With Var(gate) = c(k)/(1 − c(k)) = S(k−1)/S(k) − 1,

    v(k)     = Σ_{m<k} G_m · S(k−1−m)/S(k−1)     gates have multiplied age i by S(i−1)/S(k−1)
    P(age k) = S(k−1)/L0                          for stationary renewals
    V        = Σ_k P(age k) · c(k)/(1 − c(k)) · E‖v(k)‖²

V depends on the G only through their Gram matrix.
"""

from typing import Any

import numpy as np

from artbp._checks import real_array
from artbp.truncation.base import TruncationLaw, check_law
from artbp.truncation.tabulated import Tabulated

# The relative precision of the variance.
_PRECISION = 1e-7
_MOST_AGES = 2**20
# The fewest lags of a Gram that show its decay, and the largest missing share of the variance.
_LAGS_FOR_A_TREND = 16
_MISSING = 0.1


def streaming_variance(law: TruncationLaw, gram: Any) -> float:
    """Computes the trace of the covariance that boundaries add to the gradient, per time step.

        V = (1/L0) Σ_{k≥1} (1/S(k) − 1/S(k−1)) · E‖Σ_{i≤k} S(i−1) G_{k−i}‖²

    For the summed gradient of T steps the trace is about T·V;
    `artbp.diagnostics.truncation_covariance` gives it exactly.

    Args:
      law: hazards below 1, of finite mean length. Beyond the first ages, or its table, 1/c(k) must
        be linear in k, as for polynomial, geometric and tabulated laws. The tail is then summed in
        closed form, and V is correct to 1e-7 relative.
      gram: E⟨G_m, G_m'⟩ for m, m' = 0, …, M − 1, `[M, M]`, such as `lag_profile(...).gram`. G is
        zero from lag M on. A zero last row and column confirm this; otherwise a Gram that has not
        decayed raises, see below.

    Raises:
      TypeError: law is not a `TruncationLaw`.
      ValueError: gram is not a square symmetric matrix of finite numbers; a hazard of 1; an
        infinite mean length; a tail without closed form; or a Gram of 16 lags or more that decays
        so slowly under this law that lags beyond the last would probably add more than a tenth of
        V, or make it infinite. The geometric law's V is infinite if ‖G_m‖² falls more slowly than
        S(m).
    """
    check_law(law)
    gram = check_gram(gram)
    total, hazard, log_survival = _sum_over_ages(law, gram)
    mean_length = sum_of_survival(law, hazard, log_survival)
    _check_lags(law, gram, total)
    return total / mean_length


def check_gram(gram: Any) -> np.ndarray:
    """Returns `gram` in float64; raises ValueError unless it is square, symmetric and finite."""
    given = real_array("gram", gram, "E⟨G_m, G_m'⟩, [M, M]")
    if given.ndim != 2 or given.shape[0] != given.shape[1] or not given.size:
        raise ValueError(f"gram has shape {given.shape}; expected [M, M], lag by lag.")
    if not np.all(np.isfinite(given)) or not np.any(given):
        raise ValueError("gram holds NaN, infinity, or nothing but zeros; expected E⟨G_m, G_m'⟩.")
    if not np.allclose(given, given.T, rtol=1e-4, atol=1e-4 * np.abs(given).max()):
        raise ValueError("gram is not symmetric; expected inner products, gram[m, n] = gram[n, m].")
    return (given + given.T) / 2


def _sum_over_ages(law: TruncationLaw, gram: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Returns L0 · V; c(1), …, c(n); log S(0), …, log S(n), with n as the precision requires."""
    num_lags = len(gram)
    num_ages = max(4 * num_lags, 1024)
    if isinstance(law, Tabulated):
        num_ages = max(num_ages, len(law.hazards) + num_lags)
    while num_ages <= _MOST_AGES:
        hazard = np.asarray(law.hazard(np.arange(1, num_ages + 2)), np.float64)
        if np.any(hazard >= 1):
            raise ValueError(
                f"law={law!r} has c({np.argmax(hazard >= 1) + 1}) = 1. A certain boundary is a "
                "bias, not a variance. Use a law without a cap."
            )
        log_survival = np.concatenate([[0.0], np.cumsum(np.log1p(-hazard))])
        first = _terms(hazard, log_survival, gram)[:-1].sum()
        rest, error = _rest(hazard, log_survival, gram)
        if not np.isfinite(first + rest):
            raise ValueError(f"The variance of {law!r} with this Gram is beyond float64.")
        if error <= _PRECISION * (first + rest):
            return float(first + rest), hazard, log_survival
        num_ages *= 2
    raise ValueError(
        f"The sum over ages of {law!r} has not converged to {_PRECISION:g} after {_MOST_AGES} "
        "ages. Cut off the tail of its hazards with truncation.tabulated, or use another law."
    )


def _terms(hazard: np.ndarray, log_survival: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Computes S(k−1) · c(k)/(1 − c(k)) · ‖v(k)‖² for every age."""
    num_lags = len(gram)
    # The sum starts at the beginning of the segment: S(−1) = S(−2) = … = 0 here.
    padded = np.concatenate([np.full(num_lags - 1, -np.inf), log_survival[:-1]])
    windows = np.lib.stride_tricks.sliding_window_view(padded, num_lags)[:, ::-1]
    norms = np.empty(len(hazard))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(hazard), 4096):
            rows = slice(start, start + 4096)
            weights = np.exp(windows[rows] - log_survival[:-1][rows, None])
            norms[rows] = np.einsum("km,km->k", weights @ gram, weights)
        return np.exp(log_survival[:-1]) * hazard / (1 - hazard) * norms


def _rest(hazard: np.ndarray, log_survival: np.ndarray, gram: np.ndarray) -> tuple[float, float]:
    """Returns the sum of the terms of ages ≥ n and its largest error, for a non-rising hazard.

    Σ_{k≥n} S(k−1) c(k) = S(n−1), and ‖v(k)‖²/(1 − c(k)) lies between its value at n and its limit,
    where all weights are 1.
    """
    num_lags = len(gram)
    weights = np.exp(log_survival[-num_lags - 1 : -1][::-1] - log_survival[-2])
    now = weights @ gram @ weights / (1 - hazard[-1])
    spread = weights @ np.abs(gram) @ weights / (1 - hazard[-1]) - np.abs(gram).sum()
    if hazard[-1] == hazard[-num_lags:].max() == hazard[-num_lags:].min():
        spread = 0.0  # a constant hazard gives a constant v
    remaining = float(np.exp(log_survival[-2]))
    return remaining * now, remaining * abs(spread)


def sum_of_survival(law: TruncationLaw, hazard: np.ndarray, log_survival: np.ndarray) -> float:
    """The mean length Σ_{k≥0} S(k), from c(1), …, c(n) and log S(0), …, log S(n).

    If 1/c is linear from n on, Σ_{j≥n} S(j) = S(n) / (c(n)·(1 − slope of 1/c)).
    """
    number = len(hazard)
    ages = np.array([number - 1, number, 2 * number, 16 * number])
    later = np.asarray(law.hazard(ages), np.float64)
    if np.all(later > 0):
        inverse = 1 / later
        slope = inverse[1] - inverse[0]
        expected = inverse[1] + slope * (ages - number)
        if slope >= 1:
            raise ValueError(f"law={law!r} has no finite mean length: S(k) falls like 1/k or less.")
        if np.allclose(expected, inverse, rtol=1e-6):
            tail = np.exp(log_survival[-1]) * inverse[1] / (1 - slope)
            return float(np.exp(log_survival[:-1]).sum() + tail)
    raise ValueError(
        f"law={law!r}: its mean length cannot be summed, because 1/c(k) is not linear in k beyond "
        f"k = {number}, or c is 0 there. Tabulate its hazards with truncation.tabulated."
    )


def _check_lags(law: TruncationLaw, gram: np.ndarray, total: float) -> None:
    """Raises ValueError if lags beyond the Gram would add a large or an infinite share of the sum.

    The contributions of the last two quarters of the lags are continued as a geometric series.
    """
    num_lags = len(gram)
    if num_lags < _LAGS_FOR_A_TREND or gram[-1, -1] <= 0:
        return
    ends = (num_lags - 2 * (num_lags // 4), num_lags - num_lags // 4)
    nearer, near = (_sum_over_ages(law, gram[:end, :end])[0] for end in ends)
    before, last = abs(near - nearer), abs(total - near)
    missing = last**2 / (before - last) if last < before else np.inf
    if missing > _MISSING * total:
        problem = f"lacks about {missing / (total + missing):.0%}" if last < before else "diverges"
        raise ValueError(
            f"With {law!r} the variance {problem} at the {num_lags} lags of this Gram: their last "
            f"quarter adds {last / total:.0%} of the sum, the one before {before / total:.0%}. "
            "Measure more lags, use a heavier tail, or append a zero row and column if none follow."
        )
