"""The law of least variance, at a given mean length and a given second moment.

Cost per time step does not depend on the law; memory and update delay do, through E[L²]/L0. A
heavier tail at the same mean is often better, so laws are compared with both held:

    minimise V(S)    subject to    Σ_k S(k) = L0,    Σ_k (2k+1) S(k) ≤ E[L²]

over the hazards of the ages 1, …, n, the last of which goes on for ever, with V that of
`streaming_variance`. Newton's method is run on the logits of the hazards, along the constraints: a
damped step in their tangent space, then back onto them. The minimum is a local one, reached from
the polynomial law of the same mean and second moment, where there is one with α > 4. Where G decays
smoothly no second minimum has been seen, from starts with a peak of the hazard at any age. Where it
changes sign from lag to lag there are several: of ten random Grams of rank 3, nine led to within
1.5 % of the best of twenty starts, and one to 51 % above it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from artbp.contrib.law_objective import FEASIBLE, Jet, LawObjective, hazards_of
from artbp.truncation.base import check_mean_length
from artbp.truncation.deterministic import check_length
from artbp.truncation.streaming import check_gram
from artbp.truncation.tabulated import Tabulated, tabulated

_STEPS = 200
# Relative, of V: the decrease that ends the search.
_DECREASE = 1e-10


def optimal_law(
    gram: Any, *, mean_length: float, second_moment: float, num_ages: int | None = None
) -> Tabulated:
    """The hazards that minimise `streaming_variance` at a given mean length and second moment.

        min V(law, gram)  subject to  E[L] = mean_length, E[L²] ≤ second_moment

    E[L²] is what a law is held to because the memory and the update delay that it asks for grow
    with it: a comparison of laws means something at equal E[L] and equal E[L²] only. For example
    that of `geometric(L0)`, 2·L0² − L0; that of `polynomial(L0, α)` is
    L0 + 2·L0·(L0 − 1)·(α − 2)/(α − 3).

    Args:
      gram: E⟨G_m, G_m'⟩, `[M, M]`, as for `streaming_variance`; zero from lag M on.
      mean_length: L0 > 1, in time steps.
      second_moment: the largest E[L²], above that of a length as constant as integers allow.
      num_ages: n, ages with a hazard of their own; it is constant from there on. Default: M, or
        8·L0 if that is more. Time grows like (n + M)³: seconds for a thousand.

    Returns:
      A `tabulated` law. The constraints hold to 1e-6 relative.

    Raises:
      ValueError: a Gram that is none, see `streaming_variance`; a mean length or second moment
        that no law has.
    """
    gram = check_gram(gram)
    check_mean_length(mean_length)
    whole = np.floor(mean_length)
    least = whole**2 + (mean_length - whole) * (2 * whole + 1)
    if not (np.isfinite(second_moment) and second_moment > least * (1 + 1e-6)):
        raise ValueError(
            f"second_moment={second_moment!r}; expected a finite number above {least:.6g}, which "
            f"is E[L²] of the most regular lengths of mean {mean_length:.6g}. That of "
            f"geometric(mean_length) is {2 * mean_length**2 - mean_length:.6g}."
        )
    if num_ages is None:
        num_ages = max(len(gram), int(np.ceil(8 * mean_length)))
    if check_length(num_ages, "num_ages") < 2:
        raise ValueError(f"num_ages={num_ages}; expected 2 at least, for two constraints.")
    problem = LawObjective(gram, float(mean_length), float(second_moment), num_ages)
    logits = _minimise(problem, _start(problem))
    return tabulated(hazards_of(logits).tolist())


def _minimise(problem: LawObjective, logits: np.ndarray | None) -> np.ndarray:
    """Damped Newton steps in the tangent space of the constraints, each followed by `restore`."""
    if logits is None:
        raise ValueError(
            f"No law with hazards at {problem.num_ages} ages was found that has a mean length of "
            f"{problem.mean_length:.6g} and a second moment of {problem.second_moment:.6g}. Allow "
            "for more ages, or a second moment nearer to the geometric law's."
        )
    damping = 1e-3
    for _ in range(_STEPS):
        variance, constraints = problem.variance_jet(logits), problem.constraints(logits)
        jacobian = problem.jacobian(logits)
        gradient = variance.gradient @ jacobian / variance.value
        normals = np.stack([constraint.gradient @ jacobian for constraint in constraints])
        multipliers = np.linalg.lstsq(normals.T, -gradient)[0]
        # The second moment is a bound: it holds nothing where it is not reached, or where a
        # smaller one is better.
        active = 2 if constraints[1].value > -FEASIBLE and multipliers[1] >= 0 else 1
        if active == 1:
            normals, constraints = normals[:1], constraints[:1]
            multipliers = np.linalg.lstsq(normals.T, -gradient)[0]
        lagrangian = Jet(
            0.0,
            variance.gradient / variance.value + multipliers @ [c.gradient for c in constraints],
            variance.hessian / variance.value
            + sum(m * c.hessian for m, c in zip(multipliers, constraints, strict=True)),
        )
        hessian = problem.hessian(lagrangian, logits)
        # Steps are measured by the probability of the lengths that they move.
        scale = 1 / np.sqrt(_length_probabilities(problem, logits))
        basis = np.linalg.qr((normals * scale).T, mode="complete")[0][:, active:]
        reduced = basis.T @ (scale[:, None] * hessian * scale) @ basis
        slope = basis.T @ (scale * gradient)
        basis = scale[:, None] * basis
        found = None
        while found is None and damping < 1e12:
            found = _step(problem, active, logits, variance.value, basis, reduced, slope, damping)
            damping = 10 * damping if found is None else max(damping / 10, 1e-12)
        decrease = 0.0
        if found is not None:
            decrease = 1 - problem.variance(found) / variance.value
            logits = found
        if decrease < _DECREASE:
            break
    return logits


def _step(
    problem: LawObjective,
    active: int,
    logits: np.ndarray,
    value: float,
    basis: np.ndarray,
    hessian: np.ndarray,
    slope: np.ndarray,
    damping: float,
) -> np.ndarray | None:
    """The logits after a step that makes the variance smaller, or None."""
    try:
        factor = np.linalg.cholesky(hessian + damping * np.eye(len(slope)))
    except np.linalg.LinAlgError:
        return None
    step = -basis @ np.linalg.solve(factor.T, np.linalg.solve(factor, slope))
    step /= max(1.0, np.abs(step).max() / 3)
    found = problem.restore(logits + step, active)
    if found is not None and problem.excess(found)[1] > FEASIBLE:
        found = problem.restore(found)
    return found if found is not None and problem.variance(found) < value else None


def _start(problem: LawObjective) -> np.ndarray | None:
    """Logits on the constraints: of the polynomial law of these moments, or of a constant hazard.

    But of no heavier tail than that of α = 4: where the bound on E[L²] is far off, the optimum is
    near laws that do not come near it.
    """
    mean = problem.mean_length
    ages = np.arange(1, problem.num_ages + 1)
    ratio = (problem.second_moment - mean) / (2 * mean * (mean - 1))  # (α − 2)/(α − 3)
    hazard, active = np.full(problem.num_ages, 1 / mean), 2
    if ratio > 1 + 1e-6:
        alpha = (3 * ratio - 2) / (ratio - 1)
        active = 2 if alpha > 4 else 1
        alpha = max(alpha, 4.0)
        hazard = (alpha - 1) / ((alpha - 2) * mean + ages)
    return problem.restore(np.log(hazard) - np.log1p(-hazard), active)


def _length_probabilities(problem: LawObjective, logits: np.ndarray) -> np.ndarray:
    """P(L = k) for k < n, then P(L ≥ n)."""
    survival = np.exp(problem.log_survival(logits))[: problem.num_ages]
    return np.append((survival * hazards_of(logits))[:-1], survival[-1])
