"""Student's t, for intervals around means of a few samples."""

from __future__ import annotations


def student_t_quantile(confidence: float, degrees_of_freedom: float) -> float:
    """q with P(|t| ≤ q) = confidence for Student's t; with ∞ degrees of freedom the normal law."""
    from scipy import special  # here, because `import artbp` would wait for it

    return float(special.stdtrit(degrees_of_freedom, (1 + confidence) / 2))
