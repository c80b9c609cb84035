"""The laws that are compared, and the designs held against them at equal moments."""

import warnings

import numpy as np

from artbp.contrib import optimal_law
from artbp.truncation import Tabulated, TruncationLaw, geometric, polynomial, tabulated

MEAN_LENGTH, ALPHA = 16, 4.0
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that α = 3 has an infinite E[L²]
    LAWS: dict[str, TruncationLaw] = {
        f"α = {alpha}": polynomial(MEAN_LENGTH, float(alpha)) for alpha in range(3, 9)
    }
LAWS["geometric"] = geometric(MEAN_LENGTH)
# E[L²]/L0 of α = 4, and the geometric law that has it too.
DELAY = 61
LONGER = geometric((DELAY + 1) / 2)


def second_moment(law: TruncationLaw) -> float:
    """E[L²]; for α = 3, where it is infinite, that of α = 4: the design gets by with less."""
    alpha = getattr(law, "alpha", np.inf)
    alpha = ALPHA if alpha <= 3 else alpha
    ratio = 1.0 if np.isinf(alpha) else (alpha - 2) / (alpha - 3)
    return MEAN_LENGTH + 2 * MEAN_LENGTH * (MEAN_LENGTH - 1) * ratio


def design(gram: np.ndarray, law: TruncationLaw) -> Tabulated:
    """The optimal law of the mean length and the second moment of `law`."""
    return optimal_law(gram, mean_length=MEAN_LENGTH, second_moment=second_moment(law))


def summed_second_moment(law: TruncationLaw) -> float:
    """E[L²] of a law whose hazard ends at a constant above 0."""
    ages = np.arange(1_000_000)
    return float(np.sum((2 * ages + 1) * law.survival(ages)))


def two_hazards(law: TruncationLaw) -> TruncationLaw:
    """c(1) of its own, and another for all later ages, of the moments of `law`: no design at all.

    L = 1 + B·Geom(c), P(B = 1) = (L0 − 1)·c, and E[(L − 1)²] = (L0 − 1)·(2 − c)/c.
    """
    of_the_rest = second_moment(law) - 2 * MEAN_LENGTH + 1
    later = 2 / (of_the_rest / (MEAN_LENGTH - 1) + 1)
    return tabulated([1 - (MEAN_LENGTH - 1) * later, later])


def longest(law: TruncationLaw, number: int = 10_000) -> float:
    """The mean of the longest of so many segments, in time steps."""
    return float(np.sum(1 - (1 - law.survival(np.arange(200_000))) ** number))
