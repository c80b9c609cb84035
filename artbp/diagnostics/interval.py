"""Confidence intervals for means of a few samples: Student's t and the jackknife."""

import numpy as np

from artbp._checks import check_positive


def check_confidence(confidence: float) -> None:
    """Raises ValueError unless the level is between 0 and 1."""
    check_positive(confidence=confidence)
    if not confidence < 1:
        raise ValueError(f"confidence={confidence}; expected a number between 0 and 1.")


def student_t_quantile(confidence: float, degrees_of_freedom: float) -> float:
    """Returns q with P(|t| ≤ q) = confidence; infinite degrees of freedom give the normal law."""
    from scipy import special  # imported here, because it would slow down `import artbp`

    return float(special.stdtrit(degrees_of_freedom, (1 + confidence) / 2))


def jackknife_error(left_out: np.ndarray) -> np.ndarray:
    """Computes the standard error of a statistic from its values without each group (axis 0)."""
    return np.sqrt((len(left_out) - 1) * np.var(left_out, axis=0))
