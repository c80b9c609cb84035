"""The truncation law of least variance for a given mean length and a given second moment.

The cost per time step does not depend on the law. Memory and update delay do, through E[L²]/L0. A
heavier tail at the same mean often lowers the variance, so laws are compared with both fixed:

    minimise V(S)    subject to    Σ_k S(k) = L0,    Σ_k (2k+1) S(k) ≤ E[L²]

over the hazards of the ages 1, …, n, the last of which holds at all later ages. V is that of
`streaming_variance`. Newton's method runs on the logits of the hazards: a damped step in the
tangent space of the constraints, then back onto the constraints. It starts from the polynomial law
of the same mean and second moment, if there is one with α > 4, and finds a local minimum. Where G
decays smoothly, no second minimum was found. Where G changes sign from lag to lag, there are
several: nine of ten random Grams of rank 3 led to within 1.5 % of the best of twenty starts, and
one to 51 % above it.
"""

from typing import Any

import numpy as np

from artbp._checks import check_positive
from artbp.contrib.law_objective import FEASIBLE, Jet, LawObjective, hazards_of
from artbp.truncation.base import check_mean_length
from artbp.truncation.deterministic import check_length
from artbp.truncation.streaming import check_gram
from artbp.truncation.tabulated import Tabulated, tabulated

_STEPS = 200
# The search ends at a smaller relative decrease of V.
_DECREASE = 1e-10


def optimal_law(
    gram: Any, *, mean_length: float, second_moment: float, num_ages: int | None = None
) -> Tabulated:
    """Finds the hazards that minimise `streaming_variance` for a given mean and second moment.

        min V(law, gram)  subject to  E[L] = mean_length, E[L²] ≤ second_moment

    E[L²] is fixed because memory and update delay grow with it. It is 2·L0² − L0 for
    `geometric(L0)` and L0 + 2·L0·(L0 − 1)·(α − 2)/(α − 3) for `polynomial(L0, α)`.

    Args:
      gram: E⟨G_m, G_m'⟩, `[M, M]`, as for `streaming_variance`; zero from lag M on.
      mean_length: L0 > 1, in time steps.
      second_moment: the largest E[L²], above that of the most constant integer lengths.
      num_ages: n, the number of ages with their own hazard; later ages share the last one.
        Default: M, or 8·L0 if that is larger. Time grows like (n + M)³: seconds for a thousand.

    Returns:
      A `tabulated` law. The constraints hold to 1e-6 relative.

    Raises:
      ValueError: an invalid Gram, see `streaming_variance`; moments that no law has.
    """
    gram = check_gram(gram)
    check_mean_length(mean_length)
    check_positive(second_moment=second_moment)
    whole = np.floor(mean_length)
    least = whole**2 + (mean_length - whole) * (2 * whole + 1)
    if not second_moment > least * (1 + 1e-6):
        raise ValueError(
            f"second_moment={second_moment!r}; expected a finite number above {least:.6g}, the "
            f"least possible; geometric(mean_length) has {2 * mean_length**2 - mean_length:.6g}."
        )
    if num_ages is None:
        num_ages = max(len(gram), int(np.ceil(8 * mean_length)))
    if check_length(num_ages, "num_ages") < 2:
        raise ValueError(f"num_ages={num_ages}; two constraints need at least 2.")
    objective = LawObjective(gram, float(mean_length), float(second_moment), num_ages)
    logits = _minimise(objective, _start(objective))
    return tabulated(hazards_of(logits).tolist())


def _minimise(objective: LawObjective, logits: np.ndarray | None) -> np.ndarray:
    """Takes damped Newton steps in the tangent space of the constraints, each with a `restore`."""
    if logits is None:
        raise ValueError(
            f"No law with hazards at {objective.num_ages} ages was found for these moments. Allow "
            "more ages, or a second moment nearer to the geometric law's."
        )
    damping = 1e-3
    for _ in range(_STEPS):
        variance, constraints = objective.variance_jet(logits), objective.constraints(logits)
        jacobian = objective.jacobian(logits)
        gradient = variance.gradient @ jacobian / variance.value
        normals = np.stack([constraint.gradient @ jacobian for constraint in constraints])
        multipliers = np.linalg.lstsq(normals.T, -gradient)[0]
        # The bound on the second moment is active where it is reached and a larger one is better.
        active = 2 if constraints[1].value > -FEASIBLE and multipliers[1] >= 0 else 1
        if active == 1:
            normals, constraints = normals[:1], constraints[:1]
            multipliers = np.linalg.lstsq(normals.T, -gradient)[0]
        jets = variance, *constraints
        weights = np.array([1 / variance.value, *multipliers])
        by_age = weights @ [jet.gradient for jet in jets]
        lagrangian = Jet(0.0, by_age, np.tensordot(weights, [jet.hessian for jet in jets], 1))
        hessian = objective.hessian(lagrangian, logits)
        # A step is scaled by the probability of the lengths whose hazards it changes: P(L = k) for
        # k < n, then P(L ≥ n).
        survival = np.exp(objective.log_survival(logits))[: objective.num_ages]
        scale = 1 / np.sqrt(np.append((survival * hazards_of(logits))[:-1], survival[-1]))
        basis = np.linalg.qr((normals * scale).T, mode="complete")[0][:, active:]
        reduced = basis.T @ (scale[:, None] * hessian * scale) @ basis
        slope = basis.T @ (scale * gradient)
        basis = scale[:, None] * basis
        found = None
        while found is None and damping < 1e12:
            step = _newton_step(basis, reduced, slope, damping)
            if step is not None:
                found = _smaller(objective, active, logits + step, variance.value)
            damping = 10 * damping if found is None else max(damping / 10, 1e-12)
        if found is None:
            break
        logits = found
        if 1 - objective.variance(found) / variance.value < _DECREASE:
            break
    return logits


def _newton_step(basis: Any, hessian: Any, slope: Any, damping: float) -> np.ndarray | None:
    """Returns a damped Newton step, at most 3 in each logit, or None for an indefinite Hessian."""
    try:
        factor = np.linalg.cholesky(hessian + damping * np.eye(len(slope)))
    except np.linalg.LinAlgError:
        return None
    step = -basis @ np.linalg.solve(factor.T, np.linalg.solve(factor, slope))
    return step / max(1.0, np.abs(step).max() / 3)


def _smaller(
    objective: LawObjective, active: int, logits: np.ndarray, value: float
) -> np.ndarray | None:
    """Moves logits onto the constraints; returns None unless the variance is below `value`."""
    found = objective.restore(logits, active)
    if found is not None and objective.excess(found)[1] > FEASIBLE:
        found = objective.restore(found)
    return found if found is not None and objective.variance(found) < value else None


def _start(objective: LawObjective) -> np.ndarray | None:
    """Returns logits of the polynomial law of these moments, or of a constant hazard.

    α is at least 4: where the bound on E[L²] is loose, the optimum is far from it.
    """
    mean = objective.mean_length
    ages = np.arange(1, objective.num_ages + 1)
    ratio = (objective.second_moment - mean) / (2 * mean * (mean - 1))  # (α − 2)/(α − 3)
    hazard, active = np.full(objective.num_ages, 1 / mean), 2
    if ratio > 1 + 1e-6:
        alpha = (3 * ratio - 2) / (ratio - 1)
        active = 2 if alpha > 4 else 1
        alpha = max(alpha, 4.0)
        hazard = (alpha - 1) / ((alpha - 2) * mean + ages)
    return objective.restore(np.log(hazard) - np.log1p(-hazard), active)
