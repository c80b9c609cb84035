"""Student's t, for intervals around means of a few samples; without SciPy."""

from __future__ import annotations

import math

import numpy as np


def student_t_quantile(confidence: float, degrees_of_freedom: int) -> float:
    """q with P(|t| ≤ q) = confidence for Student's t with ν degrees of freedom.

        P(|t| ≤ √ν tan θ) = C ∫₀^θ cos^{ν−1},   C = 2 Γ((ν+1)/2) / (√π Γ(ν/2))

    by Gauss-Legendre quadrature and bisection; about 1e-9 relative.
    """
    nu = degrees_of_freedom
    constant = 2 / math.sqrt(math.pi) * math.exp(math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2))
    nodes, weights = np.polynomial.legendre.leggauss(128)
    # 40 standard deviations at most: the nodes must not miss the peak of cos^{ν−1} at 0.
    low, high = 0.0, min(math.pi / 2, 40 / math.sqrt(nu))
    for _ in range(100):
        middle = (low + high) / 2
        angles = middle * (nodes + 1) / 2
        mass = constant * middle / 2 * float(weights @ np.cos(angles) ** (nu - 1))
        low, high = (middle, high) if mass < confidence else (low, middle)
    return math.sqrt(nu) * math.tan(low)
