"""Gradient estimators: one file each, one row each in the registry, all of one type.

Beside them, `rows`: whole trainings of many rows in one program.
"""

from artbp.estimators.artbp import artbp
from artbp.estimators.base import EstimatorInfo, EstimatorState, GradientEstimator
from artbp.estimators.bptt import bptt
from artbp.estimators.registry import REGISTRY, Row
from artbp.estimators.rows import IndependentRows, by_row, independent_rows
from artbp.estimators.tbptt import tbptt

__all__ = [
    "REGISTRY",
    "EstimatorInfo",
    "EstimatorState",
    "GradientEstimator",
    "IndependentRows",
    "Row",
    "artbp",
    "bptt",
    "by_row",
    "independent_rows",
    "tbptt",
]
