"""Gradient estimators: one file each, one row each in the registry, all of one type."""

from artbp.estimators.artbp import artbp
from artbp.estimators.base import EstimatorInfo, EstimatorState, GradientEstimator
from artbp.estimators.bptt import bptt
from artbp.estimators.registry import REGISTRY, Row
from artbp.estimators.tbptt import tbptt

__all__ = [
    "REGISTRY",
    "EstimatorInfo",
    "EstimatorState",
    "GradientEstimator",
    "Row",
    "artbp",
    "bptt",
    "tbptt",
]
