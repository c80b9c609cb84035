"""Student's t, for intervals around means of a few samples."""

from __future__ import annotations


def student_t_quantile(confidence: float, degrees_of_freedom: int) -> float:
    """q with P(|t| ≤ q) = confidence for Student's t with so many degrees of freedom."""
    from scipy import special  # here, because `import artbp` would wait for it

    return float(special.stdtrit(degrees_of_freedom, (1 + confidence) / 2))
