"""The variance and the moments of a law as functions of its hazards, to second order.

V is a rational function of the survivals S(k). Its gradient and Hessian are derived in S(k), then
transformed to log S(k) and to the logits of the hazards.
"""

from typing import NamedTuple

import numpy as np

# The relative precision of `restore`.
FEASIBLE = 1e-9


class Jet(NamedTuple):
    """A function of (log S(0), …, log S(K), logit c(n)) to second order."""

    value: float
    gradient: np.ndarray
    hessian: np.ndarray


class LawObjective:
    """V and the constraints as functions of the logits of the hazards c(1), …, c(n).

    Ages up to K = n + M are counted one by one; later ages depend on S(K) and c(n) only.
    """

    def __init__(self, gram: np.ndarray, mean_length: float, second_moment: float, num_ages: int):
        self.gram = gram
        self.mean_length, self.second_moment = mean_length, second_moment
        self.num_ages, self.last = num_ages, num_ages + len(gram)
        # ∂ log S(k)/∂ logit c(j) = −c(j) · uses[k, j], the number of factors 1 − c(j) in S(k).
        self.uses = np.tril(np.ones((self.last + 1, num_ages)), -1)
        self.uses[:, -1] = np.maximum(np.arange(self.last + 1) - num_ages + 1, 0)
        # Sums of antidiagonals, for the variance beyond K.
        offsets = range(len(gram) - 1, -len(gram), -1)
        self.antidiagonals = np.array([np.trace(gram[:, ::-1], offset) for offset in offsets])

    def log_survival(self, logits: np.ndarray) -> np.ndarray:
        return -self.uses @ np.logaddexp(0.0, logits)

    def jacobian(self, logits: np.ndarray) -> np.ndarray:
        """Computes ∂(log S(0), …, log S(K), last logit)/∂logits."""
        jacobian = np.concatenate([-self.uses * hazards_of(logits), np.zeros((1, self.num_ages))])
        jacobian[-1, -1] = 1.0
        return jacobian

    def hessian(self, jet: Jet, logits: np.ndarray) -> np.ndarray:
        """Transforms the Hessian of a jet to logits."""
        hazard, jacobian = hazards_of(logits), self.jacobian(logits)
        curvature = hazard * (1 - hazard) * (self.uses.T @ jet.gradient[:-1])
        return jacobian.T @ jet.hessian @ jacobian - np.diag(curvature)

    def constraints(self, logits: np.ndarray) -> tuple[Jet, Jet]:
        """Computes the relative excess of the mean and of the second moment."""
        survival, ages = np.exp(self.log_survival(logits)), np.arange(self.last + 1)
        # Beyond K: Σ_{j≥1} ρ^j = e^−x and Σ_{j≥1} (2(K + j) + 1) ρ^j = (2K + 3) e^−x + 2 e^−2x.
        # Each tail is given with its first two derivatives in x, the last logit.
        first, slope = np.exp(-logits[-1]), 2 * self.last + 3
        mean_tail = first * np.array([1, -1, 1])
        second_tail = slope * mean_tail + 2 * first**2 * np.array([1, -2, 4])
        mean = _moment(survival, np.ones(len(ages)), mean_tail, self.mean_length)
        return mean, _moment(survival, 2.0 * ages + 1, second_tail, self.second_moment)

    def excess(self, logits: np.ndarray) -> np.ndarray:
        """Returns the values of `constraints`."""
        return np.array([jet.value for jet in self.constraints(logits)])

    def restore(self, logits: np.ndarray, active: int = 2) -> np.ndarray | None:
        """Moves logits onto the first `active` constraints; returns None if that fails.

        Newton's method in as many unknowns p, q: logits + p + q·log(k/L0).
        """
        shape = np.log(np.arange(1, self.num_ages + 1) / self.mean_length)
        moves = np.stack([np.ones(self.num_ages), shape], axis=1)[:, :active]
        for _ in range(60):
            jets = self.constraints(logits)[:active]
            excess = np.log1p([jet.value for jet in jets])
            size = np.abs(excess).max()
            if size < FEASIBLE:
                return logits
            slopes = np.stack([jet.gradient / (1 + jet.value) for jet in jets])
            try:
                slopes = slopes @ (self.jacobian(logits) @ moves)
                step = moves @ np.linalg.solve(slopes, -excess)
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
        """Computes L0 · V."""
        with np.errstate(over="ignore", invalid="ignore"):
            survival, _, sums, weights = self._terms(logits)
            tail = survival[-1] * _tail_variance(self.antidiagonals, logits[-1])[0]
            return float(np.sum(weights * sums) + tail)

    def variance_jet(self, logits: np.ndarray) -> Jet:
        """Computes `variance` to second order, in the S(k) first, then in their logarithms."""
        survival, products, sums, weights = self._terms(logits)
        last, num_lags = self.last, len(self.gram)
        reversed_gram = self.gram[::-1, ::-1]
        slopes = 1 / survival**2  # of −1/S
        gradient, diagonal = np.zeros((2, last + 2))
        hessian = np.zeros((last + 2, last + 2))
        gradient[1:-1] -= sums * slopes[1:]
        gradient[:-2] += sums * slopes[:-1]
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
        tail = survival[-1] * _tail_variance(self.antidiagonals, logits[-1])
        _add_tail(gradient, hessian, tail)
        return Jet(float(weights @ sums + tail[0]), gradient, hessian)

    def _terms(self, logits: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns S(k), w Γ and a_k = w Γ wᵀ with w = S(k−1), …, S(k−M), and 1/S(k) − 1/S(k−1)."""
        log_survival = self.log_survival(logits)
        survival = np.exp(log_survival)
        num_lags = len(self.gram)
        padded = np.concatenate([np.zeros(num_lags - 1), survival[:-1]])  # 0 before S(0)
        windows = np.lib.stride_tricks.sliding_window_view(padded, num_lags)[:, ::-1]
        products = windows @ self.gram
        weights = -np.expm1(np.diff(log_survival)) / survival[1:]
        return survival, products, np.einsum("km,km->k", products, windows), weights


def hazards_of(logits: np.ndarray) -> np.ndarray:
    """Computes c(k) from its logit."""
    return np.exp(-np.logaddexp(0.0, -logits))


def _tail_variance(antidiagonals: np.ndarray, logit: float) -> np.ndarray:
    """Computes Σ_{k>K} S(k−1)/S(K) · c/(1−c) · ‖v‖² and two derivatives in the logit of c.

    With r = 1/(1 − c) it is Σ_n r^{n+1} (sum of the Γ_mm' with m + m' = n).
    """
    ratio = 1 + np.exp(logit)
    polynomial = np.polynomial.Polynomial(np.append(0.0, antidiagonals))
    first, second = polynomial.deriv(1)(ratio), polynomial.deriv(2)(ratio)
    rise = ratio - 1  # ∂r/∂logit
    return np.array([polynomial(ratio), first * rise, second * rise**2 + first * rise])


def _moment(survival: np.ndarray, weights: np.ndarray, tail: np.ndarray, target: float) -> Jet:
    """Computes (Σ_k w_k S(k) + S(K)·tail)/target − 1 to second order."""
    gradient = np.append(weights * survival, 0.0)
    hessian = np.diag(gradient)
    tail = survival[-1] * tail
    _add_tail(gradient, hessian, tail)
    value = float(weights @ survival + tail[0])
    return Jet(value / target - 1, gradient / target, hessian / target)


def _add_tail(gradient: np.ndarray, hessian: np.ndarray, tail: np.ndarray) -> None:
    """Adds the derivatives of S(K)·f(x) in log S(K) and x, given S(K)·(f, f', f'')."""
    gradient[-2:] += tail[:2]
    hessian[-2:, -2:] += [tail[:2], tail[1:]]
