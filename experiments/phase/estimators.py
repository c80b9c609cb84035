"""What is compared: each with what the prediction needs of it, and itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import artbp
from artbp import truncation
from experiments.common.arms import matched_horizon
from experiments.phase import prediction
from experiments.phase.system import System, cell, loss_fn


class Contender(NamedTuple):
    """Attributes:
    name, label: for tables and figures.
    unbiased: ARTBP, or TBPTT.
    gradient: `gradient(system) -> prediction.Gradient`, or None where its variance is infinite.
    build: `build(batch) -> GradientEstimator`, its gradient the mean over the rows.
    """

    name: str
    label: str
    unbiased: bool
    gradient: Callable[[System], prediction.Gradient | None]
    build: Callable[[int], artbp.GradientEstimator]


def contenders(mean_length: int, alpha: float) -> list[Contender]:
    """TBPTT at L0 and at ARTBP's matched horizon, ARTBP with two laws."""

    def tbptt(name: str, length: int, what: str) -> Contender:
        return Contender(
            name,
            f"TBPTT {length}{what}",
            False,
            lambda system: prediction.tbptt_gradient(system, length),
            lambda batch: artbp.tbptt(
                cell, loss_fn, truncation_length=length, normalizer=float(batch)
            ),
        )

    def with_law(name: str, law: Any, what: str) -> Contender:
        return Contender(
            name,
            f"ARTBP {mean_length}, {what}",
            True,
            lambda system: prediction.artbp_gradient(system, law, mean_length),
            lambda batch: artbp.artbp(cell, loss_fn, law, normalizer=float(batch)),
        )

    return [
        tbptt("tbptt", mean_length, ""),
        tbptt("tbptt_matched", matched_horizon(mean_length, alpha), " (matched horizon)"),
        with_law("artbp", truncation.polynomial(mean_length, alpha), f"α = {alpha:g}"),
        with_law("artbp_geometric", truncation.geometric(mean_length), "geometric"),
    ]
