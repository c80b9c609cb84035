"""Randomised truncation, as textbooks write it: ARTBP with π = 1 − c.

    z_t = ∂F_t/∂θ + ξ_t (∂F_t/∂s_{t−1}) z_{t−1},    ξ_t = 1/π_t with probability π_t, else 0

z_t estimates ds_t/dθ, without bias, because E[ξ_t] = 1 whatever has been drawn before. Taken
backwards, ξ_t is the gate on the cotangent that crosses from step t to step t − 1: (1 − X)/(1 − c)
with c = 1 − π.

Source: Zhang, Lipton, Li & Smola, "Dive into Deep Learning", section on backpropagation through
time, after Tallec & Ollivier, arXiv 1705.08209.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from artbp.estimators.artbp import artbp
from artbp.estimators.base import GradientEstimator
from artbp.truncation.tabulated import tabulated
from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import LossFn


def random_truncation(
    cell: Cell,
    loss_fn: LossFn,
    *,
    keep_probability: float | Sequence[float],
    **options: Any,
) -> GradientEstimator:
    """Randomised truncation: `artbp.artbp` with the hazard c = 1 − π.

        z_t = ∂F_t/∂θ + ξ_t (∂F_t/∂s_{t−1}) z_{t−1},    P(ξ_t = 1/π) = π, else ξ_t = 0

    Args:
      cell, loss_fn: as for `artbp.artbp`.
      keep_probability: π, in (0, 1]: one number (the geometric law, with segments of mean length
        1/(1 − π)), or π(1), …, π(n) by the age of the step before, and π(n) at every later age.
      options: of `artbp.artbp`.

    Raises:
      ValueError: a probability outside (0, 1]: at 0 a cut is certain, which nothing makes up for.

    Source: "Dive into Deep Learning", backpropagation through time; arXiv 1705.08209.
    """
    kept = [float(p) for p in np.atleast_1d(np.asarray(keep_probability, float))]
    for p in kept:
        if not 0 < p <= 1:
            raise ValueError(
                f"keep_probability={keep_probability!r}; expected probabilities in (0, 1]: at 0 "
                "the flow is cut for certain, which nothing compensates. For a fixed truncation "
                "take artbp.tbptt."
            )
    return artbp(cell, loss_fn, tabulated([1 - p for p in kept]), **options)
