"""Laws for the look-backs of `unbiased_tbptt`: their variance, their cost, and the best law.

Let R_j be the part of a window's gradient that goes through the windows j and more back, so that
R_0 is its whole gradient. The estimate adds up R_j − R_{j+1}, the part through the j-th window
back, over the windows of the look-back. Each is divided by S(j), the probability that the look-back
reaches this window. The variance of the estimate over the look-backs is

    V = Σ_{j≥1} (1/S(j) − 1/S(j−1)) ‖R_j‖²  =  Σ_{j≥1} (‖R_j‖² − ‖R_{j+1}‖²)/S(j) − ‖R_1‖²

and its expected extra work is W = Σ_{j≥1} S(j) windows backward. For a given W, V is least at
S(j) ∝ √(‖R_j‖² − ‖R_{j+1}‖²), capped at 1 and made non-increasing.
"""

from typing import Any

import numpy as np

from artbp._checks import check_positive, real_array
from artbp.truncation.base import TruncationLaw, check_law
from artbp.truncation.deterministic import Fixed
from artbp.truncation.streaming import sum_of_survival
from artbp.truncation.tabulated import Tabulated, tabulated

# The profile is continued until it is below this share of its first entry, for at most so many
# windows.
_NEGLIGIBLE, _FARTHEST = 1e-12, 100_000


def look_back_variance(law: TruncationLaw, profile: Any) -> float:
    """Computes the variance that random look-backs add to the gradient of one window.

        V = Σ_{j≥1} (1/S(j) − 1/S(j−1)) ‖R_j‖²

    This is the trace of the covariance over look-backs, for given data and params. It is exact.

    Args:
      law: the law of the look-backs, as for `artbp.unbiased_tbptt`.
      profile: ‖R_1‖², …, ‖R_J‖², as `artbp.diagnostics.look_back_profile` measures them; ‖R_j‖² is
        taken to be 0 for j > J.

    Returns:
      The variance V. It is infinite if no look-back of the law reaches a window with ‖R_j‖² > 0.

    Raises:
      TypeError: `law` is no `TruncationLaw`.
      ValueError: a profile that is empty, negative or not finite.
    """
    check_law(law)
    profile = _check(profile)
    survival = law.survival(np.arange(len(profile) + 1))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        inverse = 1 / survival
        terms = np.where(profile == 0, 0, np.diff(inverse) * profile)
    return float(np.sum(np.where(np.isnan(terms), np.inf, terms)))


def look_back_work(law: TruncationLaw) -> float:
    """Computes W = Σ_{j≥1} S(j), the expected number of older windows of an estimate.

    An estimate of `artbp.unbiased_tbptt` takes one window forward and 1 + W windows backward, on
    average.

    Args:
      law: the law of the look-backs.

    Returns:
      The number W. It is infinite if the hazard becomes 0, as for `never()`, because such
      look-backs go back to the beginning of the stream, however long it is.

    Raises:
      ValueError: a law whose tail cannot be summed, because 1/c(j) is not linear in j far back.
    """
    check_law(law)
    if isinstance(law, Fixed):
        return float(law.length - 1)
    num_ages = max(10_000, 1 + len(law.hazards)) if isinstance(law, Tabulated) else 10_000
    hazard = np.asarray(law.hazard(np.arange(1, num_ages + 1)), np.float64)
    with np.errstate(divide="ignore"):  # log 0 = −∞: the survival after a certain boundary
        log_survival = np.append(0.0, np.cumsum(np.log1p(-hazard)))
    if hazard[-1] == 0 and np.isfinite(log_survival[-1]):
        return float("inf")
    return sum_of_survival(law, hazard, log_survival) - 1


def optimal_look_back(profile: Any, *, extra_work: float) -> Tabulated:
    """Finds the law of least variance for `artbp.unbiased_tbptt` at a given expected work.

        min Σ_{j≥1} (1/S(j) − 1/S(j−1)) ‖R_j‖²   subject to   Σ_{j≥1} S(j) = extra_work

    The solution is S(j) = min(1, a √d_j). Here d is the non-increasing sequence that is nearest to
    ‖R_j‖² − ‖R_{j+1}‖² in the mean square, and `a` is such that Σ S(j) = extra_work. If
    ‖R_j‖ ∝ ρ^j, the solution is S(j) ∝ ρ^j: hazard 1 − ρ from the second edge on, and at the first
    edge the hazard that fits the work (where no S(j) is capped at 1).

    After its last entry, the profile is continued at the mean rate at which its last half falls. So
    the law reaches every window, and the gradient is unbiased for any profile.

    Args:
      profile: ‖R_1‖², …, ‖R_J‖², J ≥ 2, positive, as `artbp.diagnostics.look_back_profile` measures
        them. The last must be below the first.
      extra_work: the expected number of older windows of an estimate, > 0. If a backward pass costs
        twice as much as a forward pass, an estimate costs 1 + 2/3·extra_work times as much as one
        of `artbp.tbptt`.

    Returns:
      A `tabulated` law.

    Raises:
      ValueError: a profile that is not positive or does not fall; extra_work ≤ 0, or not
        clearly less than the number of windows before the profile is negligible (1e-12 of its
        first entry).
    """
    profile = _check(profile)
    if len(profile) < 2 or profile.min() <= 0 or profile[-1] >= profile[0]:
        raise ValueError(
            f"profile={profile!r}; expected two or more positive numbers, the last below the first."
        )
    check_positive(extra_work=extra_work)
    weights = -np.diff(_continued(profile))
    survival = best_survival(weights, extra_work)
    hazards = 1 - survival / np.append(1.0, survival[:-1])
    law = tabulated(np.clip(hazards, 0.0, 1.0).tolist())
    if look_back_work(law) > 1.01 * extra_work:  # its last hazard, which goes on for ever, is small
        raise ValueError(
            f"extra_work={extra_work}; expected clearly less than {len(weights)}, the number of "
            "older windows in which this profile, continued, is not negligible. truncation.never() "
            "looks back to the beginning of the stream at every update."
        )
    return law


def best_survival(weights: Any, work: float) -> np.ndarray:
    """Minimises Σ_j weights_j/S_j over 1 ≥ S_1 ≥ S_2 ≥ … ≥ 0 with Σ_j S_j = work.

    If work exceeds the number of weights, all S_j are 1.
    """
    from scipy import optimize  # imported here, because it would slow down `import artbp`

    weights = np.asarray(weights, np.float64)
    pooled = optimize.isotonic_regression(weights, increasing=False).x
    shape = np.sqrt(np.maximum(pooled, 0.0))
    # If the first m are 1, the others share the rest of the work in proportion to their shape.
    tails = np.cumsum(shape[::-1])[::-1]
    for m in range(len(shape)):
        if work <= m or tails[m] == 0:
            break
        scale = (work - m) / tails[m]
        if scale * shape[m] <= 1:
            return np.append(np.ones(m), scale * shape[m:])
    return np.ones(len(shape))


def _continued(profile: np.ndarray) -> np.ndarray:
    """The profile, continued geometrically until it is negligible."""
    steps = len(profile) // 2
    if profile[-1 - steps] <= profile[-1]:
        steps = len(profile) - 1
    rate = (profile[-1] / profile[-1 - steps]) ** (1 / steps)
    needed = np.log(_NEGLIGIBLE * profile[0] / profile[-1]) / np.log(rate)
    count = int(np.clip(np.ceil(needed), 2, _FARTHEST))
    return np.append(profile, profile[-1] * rate ** np.arange(1, count + 1))


def _check(profile: Any) -> np.ndarray:
    profile = real_array("profile", profile, "‖R_1‖², ‖R_2‖², …, finite and not negative")
    if profile.ndim != 1 or not profile.size or not np.isfinite(profile).all() or profile.min() < 0:
        raise ValueError(
            f"profile={profile!r}; expected ‖R_1‖², ‖R_2‖², …, finite and not negative."
        )
    return profile
