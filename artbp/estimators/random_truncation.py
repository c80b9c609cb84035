"""Randomised truncation in the textbook form: ARTBP whose hazard is c = 1 − π."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from artbp._checks import real_array
from artbp.estimators.artbp import artbp
from artbp.estimators.base import GradientEstimator
from artbp.truncation.tabulated import tabulated
from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import LossFn


def random_truncation(
    cell: Cell, loss_fn: LossFn, *, keep_probability: float | Sequence[float], **options: Any
) -> GradientEstimator:
    """Randomised truncation is `artbp.artbp` with the hazard c = 1 − π.

        z_t = ∂F_t/∂θ + ξ_t (∂F_t/∂s_{t−1}) z_{t−1},    P(ξ_t = 1/π_t) = π_t, else ξ_t = 0

    z_t is an unbiased estimate of ds_t/dθ, because E[ξ_t] = 1 given all earlier draws. In the
    backward pass, ξ_t is the gate (1 − X)/(1 − c) on the cotangent from step t to step t − 1.

    Args:
      cell, loss_fn: as for `artbp.artbp`.
      keep_probability: π in (0, 1]. One number gives the geometric law, with segments of mean
        length 1/(1 − π). A sequence π(1), …, π(n) gives π by the age of the step before; π(n) also
        holds at all later ages.
      options: of `artbp.artbp`.

    Raises:
      ValueError: a probability outside (0, 1], or so small that 1 − π rounds to 1; a certain cut
        cannot be compensated.

    Source: Zhang, Lipton, Li & Smola, "Dive into Deep Learning", section on backpropagation through
    time, after Tallec & Ollivier, arXiv 1705.08209.
    """
    expected = "probabilities in (0, 1]"
    given = np.atleast_1d(real_array("keep_probability", keep_probability, expected))
    probabilities = given.ravel().tolist()
    if given.ndim > 1 or not probabilities or not all(0 <= 1 - p < 1 for p in probabilities):
        raise ValueError(
            f"keep_probability={keep_probability!r}; expected {expected}, one or [n]. A certain "
            "cut, at 0, cannot be compensated. For a fixed truncation use artbp.tbptt."
        )
    return artbp(cell, loss_fn, tabulated([1 - p for p in probabilities]), **options)
