"""artbp: truncated backpropagation through time without the bias, in JAX.

Computes the gradient of a recurrent model along a long sequence, one segment at a time. It has
truncated BPTT, which is biased, and ARTBP (Tallec & Ollivier, arXiv 1705.08209), which makes the
truncated gradient unbiased by random boundaries and a compensated backward flow.
"""

from artbp import adapters, cells, contrib, diagnostics, truncation, unrolls
from artbp.cells.associative import associative_unroll
from artbp.data_parallel import data_parallel
from artbp.estimators import (
    REGISTRY,
    ChunkedEstimator,
    EstimatorInfo,
    EstimatorSpec,
    EstimatorState,
    GradientEstimator,
    Plan,
    adaptive_tbptt,
    artbp,
    awd_lstm_bptt,
    bptt,
    diagonal_rtrl,
    forward_gradient,
    gpes,
    nres,
    pes,
    random_truncation,
    rtrl,
    run_pass,
    scale_by_learning_rate_factor,
    snap1,
    tbptt,
    tbptt_k1_k2,
    truncated_es,
    unbiased_tbptt,
    uoro,
)
from artbp.evaluation import Evaluation, evaluate
from artbp.keys import with_keys
from artbp.learned_carry import LearnedCarry, learned_carry
from artbp.stream import Stream
from artbp.stream_chunks import stream_chunks
from artbp.time_steps import scale_by_time_step_schedule
from artbp.unrolls import fused_unroll, gate, scan, unroll

__version__ = "0.1.0"

__all__ = [
    "REGISTRY",
    "ChunkedEstimator",
    "EstimatorInfo",
    "EstimatorSpec",
    "EstimatorState",
    "Evaluation",
    "GradientEstimator",
    "LearnedCarry",
    "Plan",
    "Stream",
    "adapters",
    "adaptive_tbptt",
    "artbp",
    "associative_unroll",
    "awd_lstm_bptt",
    "bptt",
    "cells",
    "contrib",
    "data_parallel",
    "diagnostics",
    "diagonal_rtrl",
    "evaluate",
    "forward_gradient",
    "fused_unroll",
    "gate",
    "gpes",
    "learned_carry",
    "nres",
    "pes",
    "random_truncation",
    "rtrl",
    "run_pass",
    "scale_by_learning_rate_factor",
    "scale_by_time_step_schedule",
    "scan",
    "snap1",
    "stream_chunks",
    "tbptt",
    "tbptt_k1_k2",
    "truncated_es",
    "truncation",
    "unbiased_tbptt",
    "unroll",
    "unrolls",
    "uoro",
    "with_keys",
]
