"""The variance and the moments of a law as functions of its hazards, to second order.

V is a rational function of the survivals S(k), so its gradient and Hessian are written down in
them, and carried over to their logarithms and on to the logits of the hazards.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Relative: how closely `restore` meets a constraint.
FEASIBLE = 1e-9


class Jet(NamedTuple):
    """A function of (log S(0), …, log S(K), logit c(n)) to second order; hessian may be None."""

    value: float
    gradient: np.ndarray
    hessian: np.ndarray


class LawObjective:
    """V and the constraints as functions of the logits of the hazards c(1), …, c(n).

    Ages are counted one by one up to K = n + M, from where on nothing but S(K) matters.
    """

    def __init__(self, gram: np.ndarray, mean_length: float, second_moment: float, num_ages: int):
        self.gram = gram
        self.mean_length, self.second_moment = mean_length, second_moment
        self.num_ages, self.last = num_ages, num_ages + len(gram)
        # ∂ log S(k)/∂ logit c(j) = −c(j) · (how often age j's hazard was met by age k).
        met = np.tril(np.ones((self.last + 1, num_ages)), -1)
        met[:, -1] = np.maximum(np.arange(self.last + 1) - num_ages + 1, 0)
        self.met = met
        # Antidiagonal sums, for the variance beyond K.
        self.by_sum = np.array(
            [np.trace(gram[:, ::-1], len(gram) - 1 - n) for n in range(2 * len(gram) - 1)]
        )

    def log_survival(self, logits: np.ndarray) -> np.ndarray:
        return -self.met @ np.logaddexp(0.0, logits)

    def jacobian(self, logits: np.ndarray) -> np.ndarray:
        """∂(log S(0), …, log S(K), last logit)/∂logits."""
        jacobian = np.concatenate([-self.met * hazards_of(logits), np.zeros((1, self.num_ages))])
        jacobian[-1, -1] = 1.0
        return jacobian

    def hessian(self, jet: Jet, logits: np.ndarray) -> np.ndarray:
        """By the logits, of a function of the log survivals."""
        hazard, jacobian = hazards_of(logits), self.jacobian(logits)
        bend = hazard * (1 - hazard) * (self.met.T @ jet.gradient[:-1])
        return jacobian.T @ jet.hessian @ jacobian - np.diag(bend)

    def constraints(self, logits: np.ndarray) -> tuple[Jet, Jet]:
        """Relative excess of the mean and of the second moment, in the log survivals."""
        survival = np.exp(self.log_survival(logits))
        ages = np.arange(self.last + 1)
        # Beyond K: Σ_{j≥1} ρ^j = e^−x and Σ_{j≥1} (2(K + j) + 1) ρ^j = (2K + 3) e^−x + 2 e^−2x.
        x = logits[-1]
        first, slope = np.exp(-x), 2 * self.last + 3
        mean = _linear(survival, np.ones(len(ages)), first, -first, first, self.mean_length)
        second = _linear(
            survival,
            2.0 * ages + 1,
            slope * first + 2 * first**2,
            -slope * first - 4 * first**2,
            slope * first + 8 * first**2,
            self.second_moment,
        )
        return mean, second

    def excess(self, logits: np.ndarray) -> np.ndarray:
        """The values of `constraints`."""
        return np.array([jet.value for jet in self.constraints(logits)])

    def restore(self, logits: np.ndarray, active: int = 2) -> np.ndarray | None:
        """The logits moved onto the first `active` constraints; None where that fails.

        Newton's method in as many unknowns p, q: logits + p + q·log(k/L0).
        """
        shape = np.log(np.arange(1, self.num_ages + 1) / self.mean_length)
        moves = np.stack([np.ones(self.num_ages), shape], axis=1)[:, :active]
        for _ in range(60):
            excess = self.excess(logits)[:active]
            size = np.abs(np.log1p(excess)).max()
            if size < FEASIBLE:
                return logits
            jets = self.constraints(logits)[:active]
            slopes = np.stack([jet.gradient / (1 + jet.value) for jet in jets])
            slopes = slopes @ (self.jacobian(logits) @ moves)
            try:
                step = moves @ np.linalg.solve(slopes, -np.log1p(excess))
            except np.linalg.LinAlgError:
                return None
            step /= max(1.0, np.abs(step).max() / 0.5)
            while np.abs(np.log1p(self.excess(logits + step)[:active])).max() > size * (1 + 1e-9):
                step = step / 2
                if np.abs(step).max() < 1e-12:
                    return None
            logits = logits + step
        return None

    def variance(self, logits: np.ndarray) -> float:
        """L0 · V."""
        log_survival = self.log_survival(logits)
        survival = np.exp(log_survival)
        windows = _windows(survival, len(self.gram))
        sums = np.einsum("km,km->k", windows @ self.gram, windows)
        hazard = -np.expm1(np.diff(log_survival))
        with np.errstate(over="ignore", invalid="ignore"):
            tail = survival[-1] * _tail_variance(self.by_sum, logits[-1])[0]
            return float(np.sum(hazard / survival[1:] * sums) + tail)

    def variance_jet(self, logits: np.ndarray) -> Jet:
        """`variance` to second order: Σ_k (1/S(k) − 1/S(k−1)) a_k, a_k = Σ Γ_mn S(k−1−m) S(k−1−n),
        first in the S(k), then in their logarithms."""
        log_survival = self.log_survival(logits)
        survival = np.exp(log_survival)
        gram, last, num_lags = self.gram, self.last, len(self.gram)
        reversed_gram = gram[::-1, ::-1]
        windows = _windows(survival, num_lags)
        products = windows @ gram
        sums = np.einsum("km,km->k", products, windows)
        weights = -np.expm1(np.diff(log_survival)) / survival[1:]  # 1/S(k) − 1/S(k−1)
        slopes = 1 / survival**2  # of −1/S
        gradient, hessian = np.zeros(last + 2), np.zeros((last + 2, last + 2))
        gradient[1:-1] -= sums * slopes[1:]
        gradient[:-2] += sums * slopes[:-1]
        diagonal = np.zeros(last + 2)
        diagonal[1:-1] += 2 * sums * slopes[1:] / survival[1:]
        diagonal[:-2] -= 2 * sums * slopes[:-1] / survival[:-1]
        for k in range(1, last + 1):
            first = max(0, k - num_lags)
            inside, used = slice(first, k), num_lags - (k - first)
            of_sum = 2 * products[k - 1, : k - first][::-1]  # ∂a_k/∂S(first), …, ∂S(k−1)
            gradient[inside] += weights[k - 1] * of_sum
            hessian[inside, inside] += 2 * weights[k - 1] * reversed_gram[used:, used:]
            for age, slope in ((k, -slopes[k]), (k - 1, slopes[k - 1])):
                hessian[age, inside] += slope * of_sum
                hessian[inside, age] += slope * of_sum
        by_log = np.append(survival, 1.0)
        gradient *= by_log
        hessian = by_log[:, None] * (hessian + np.diag(diagonal)) * by_log + np.diag(gradient)
        tail, slope, curvature = survival[-1] * _tail_variance(self.by_sum, logits[-1])
        gradient[-2:] += [tail, slope]
        hessian[-2:, -2:] += [[tail, slope], [slope, curvature]]
        return Jet(float(weights @ sums + tail), gradient, hessian)


def hazards_of(logits: np.ndarray) -> np.ndarray:
    """c(k) from its logit."""
    return np.exp(-np.logaddexp(0.0, -logits))


def _windows(survival: np.ndarray, num_lags: int) -> np.ndarray:
    """S(k−1), S(k−2), …, S(k−M) for k = 1, 2, …; 0 before S(0)."""
    padded = np.concatenate([np.zeros(num_lags - 1), survival[:-1]])
    return np.lib.stride_tricks.sliding_window_view(padded, num_lags)[:, ::-1]


def _tail_variance(by_sum: np.ndarray, logit: float) -> np.ndarray:
    """Σ_{k>K} S(k−1)/S(K) · c/(1−c) · ‖v‖² with its first two derivatives by the logit of c.

    With r = 1/(1 − c) it is Σ_n r^{n+1} (sum of the Γ_mm' with m + m' = n).
    """
    ratio = 1 + np.exp(logit)
    polynomial = np.polynomial.Polynomial(np.append(0.0, by_sum))
    first, second = polynomial.deriv(1)(ratio), polynomial.deriv(2)(ratio)
    rise = ratio - 1  # ∂r/∂logit
    return np.array([polynomial(ratio), first * rise, second * rise**2 + first * rise])


def _linear(
    survival: np.ndarray,
    weights: np.ndarray,
    tail: float,
    tail_slope: float,
    tail_curvature: float,
    target: float,
) -> Jet:
    """(Σ_k w_k S(k) + S(K)·tail)/target − 1, in the logarithms of the S(k) and the last logit."""
    gradient = np.append(weights * survival, 0.0)
    hessian = np.diag(gradient)
    gradient[-2:] += survival[-1] * np.array([tail, tail_slope])
    hessian[-2:, -2:] += survival[-1] * np.array([[tail, tail_slope], [tail_slope, tail_curvature]])
    value = float(weights @ survival + survival[-1] * tail)
    return Jet(value / target - 1, gradient / target, hessian / target)
