"""Gradient estimators, all of one type, one file each; `REGISTRY` lists those for any cell."""

from artbp.estimators.adaptive import adaptive_tbptt
from artbp.estimators.artbp import artbp
from artbp.estimators.awd_lstm import awd_lstm_bptt, scale_by_learning_rate_factor
from artbp.estimators.base import (
    ChunkedEstimator,
    EstimatorInfo,
    EstimatorState,
    GradientEstimator,
    Plan,
)
from artbp.estimators.bptt import bptt
from artbp.estimators.diagonal_rtrl import diagonal_rtrl
from artbp.estimators.forward_gradient import forward_gradient
from artbp.estimators.nres import gpes, nres
from artbp.estimators.pes import pes
from artbp.estimators.random_truncation import random_truncation
from artbp.estimators.registry import REGISTRY, EstimatorSpec
from artbp.estimators.rtrl import rtrl
from artbp.estimators.run_pass import run_pass
from artbp.estimators.snap1 import snap1
from artbp.estimators.tbptt import tbptt
from artbp.estimators.tbptt_k1_k2 import tbptt_k1_k2
from artbp.estimators.truncated_es import truncated_es
from artbp.estimators.unbiased_tbptt import unbiased_tbptt
from artbp.estimators.uoro import uoro

__all__ = [
    "REGISTRY",
    "ChunkedEstimator",
    "EstimatorInfo",
    "EstimatorSpec",
    "EstimatorState",
    "GradientEstimator",
    "Plan",
    "adaptive_tbptt",
    "artbp",
    "awd_lstm_bptt",
    "bptt",
    "diagonal_rtrl",
    "forward_gradient",
    "gpes",
    "nres",
    "pes",
    "random_truncation",
    "rtrl",
    "run_pass",
    "scale_by_learning_rate_factor",
    "snap1",
    "tbptt",
    "tbptt_k1_k2",
    "truncated_es",
    "unbiased_tbptt",
    "uoro",
]
