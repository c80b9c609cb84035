"""One row per estimator and mode: the shared tests and the comparisons run over these."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from artbp import truncation
from artbp.estimators.adaptive import adaptive_tbptt
from artbp.estimators.artbp import artbp
from artbp.estimators.awd_lstm import awd_lstm_bptt
from artbp.estimators.base import GradientEstimator
from artbp.estimators.bptt import bptt
from artbp.estimators.forward_gradient import forward_gradient
from artbp.estimators.nres import gpes, nres
from artbp.estimators.pes import pes
from artbp.estimators.random_truncation import random_truncation
from artbp.estimators.rtrl import rtrl
from artbp.estimators.snap1 import snap1
from artbp.estimators.tbptt import tbptt
from artbp.estimators.tbptt_k1_k2 import tbptt_k1_k2
from artbp.estimators.truncated_es import truncated_es
from artbp.estimators.unbiased_tbptt import unbiased_tbptt
from artbp.estimators.uoro import uoro

Bias = Literal["none", "truncation", "sparsity", "smoothing", "truncation and smoothing"]


class EstimatorSpec(NamedTuple):
    """An estimator and what it claims.

    All take any cell, with complex numbers too. (rtrl, snap1, uoro and
    forward_gradient need a cell that JAX can differentiate in forward mode, and black boxes real
    params.)

    Attributes:
      build: `build(cell, loss_fn, mean_length, **options) -> GradientEstimator`, with an update
        every `mean_length` steps on average (`bptt`: once a pass; `adaptive_tbptt`: at first).
        Options are `normalizer` and, where `segmentwise`, `policy` and `block_size`.
      bias: why its expectation over keys, with frozen params, differs from the BPTT gradient.
        "smoothing" vanishes with the size of the perturbations.
      random: whether keys matter.
      segmentwise: it runs backward through the segment kernels; the others are one compiled
        program per estimate.
      black_box: cell and loss need no derivative.
      sums: the gradients of a pass sum to an estimate of that of the sequence. Where False, each
        is the mean over its segment.
    """

    build: Callable[..., GradientEstimator]
    bias: Bias = "none"
    random: bool = True
    segmentwise: bool = False
    black_box: bool = False
    sums: bool = True

    @property
    def unbiased(self) -> bool:
        """Whether its expectation is the BPTT gradient."""
        return self.bias == "none"

    @property
    def exact(self) -> bool:
        """Whether its gradient over a pass of the stream is the BPTT gradient, without chance."""
        return self.unbiased and not self.random


def _build(estimator: Callable[..., GradientEstimator], options_at: Callable[[int], Any]) -> Any:
    """Builds `estimator` with the options that `options_at` gives for a mean length."""

    def build(cell: Any, loss_fn: Any, mean_length: int, **options: Any) -> GradientEstimator:
        return estimator(cell, loss_fn, **options_at(mean_length), **options)

    return build


def _every(estimator: Callable[..., GradientEstimator], name: str, **fixed: Any) -> Any:
    """`name` is the option that takes the number of steps between updates."""
    return _build(estimator, lambda n: {name: n, **fixed})


def _tbptt_k1_k2(reach: float, **fixed: Any) -> Any:
    """k1 is the mean length, k2 that times `reach`."""
    return _build(tbptt_k1_k2, lambda n: {"k1": n, "k2": max(1, round(reach * n)), **fixed})


def _artbp(law: Callable[[float], truncation.TruncationLaw], **fixed: Any) -> Any:
    return _build(artbp, lambda n: {"law": law(n), **fixed})


def _polynomial(alpha: float, **fixed: Any) -> Any:
    return _artbp(lambda n: truncation.polynomial(n, alpha), **fixed)


def _awd_lstm(
    cell: Any, loss_fn: Any, mean_length: int, normalizer: float = 1.0, **options: Any
) -> GradientEstimator:
    del normalizer  # it divides by the number of losses of a segment
    spread = {"deviation": mean_length / 14, "shortest": max(1, mean_length // 14)}  # 5 of 70
    return awd_lstm_bptt(cell, loss_fn, base_length=mean_length, **spread, **options)


def _adaptive_options(n: int) -> dict[str, int]:
    limits = {"first_length": n, "shortest": 1, "longest": 16 * n}
    return {**limits, "fitted_from": n, "measured_lags": 4 * n}


def _unbiased_options(n: int) -> dict[str, Any]:
    """A look-back has one and a half windows on average, and a tail that falls like j⁻³."""
    return {"law": truncation.polynomial(1.5, 4), "truncation_length": n}


_truncated = functools.partial(EstimatorSpec, bias="truncation")

REGISTRY: dict[str, EstimatorSpec] = {
    "bptt": EstimatorSpec(_build(bptt, lambda n: {}), random=False, segmentwise=True),
    "tbptt": _truncated(_every(tbptt, "truncation_length"), random=False, segmentwise=True),
    "tbptt_drawn_offset": _truncated(
        _every(tbptt, "truncation_length", draw_offset=True), segmentwise=True
    ),
    "tbptt_short_window": _truncated(_tbptt_k1_k2(0.5), random=False),
    "tbptt_stored": _truncated(_tbptt_k1_k2(2), random=False),
    "tbptt_past_weights": _truncated(_tbptt_k1_k2(2, mode="past_weights"), random=False),
    "tbptt_reforward": _truncated(_tbptt_k1_k2(2, mode="reforward"), random=False),
    "tbptt_window_losses": _truncated(_tbptt_k1_k2(2, losses="window"), random=False),
    "adaptive_tbptt": _truncated(_build(adaptive_tbptt, _adaptive_options), random=False),
    "awd_lstm_bptt": _truncated(_awd_lstm, segmentwise=True, sums=False),
    "uncompensated_polynomial_4": _truncated(_polynomial(4, compensate=False), segmentwise=True),
    "artbp_polynomial_4": EstimatorSpec(_polynomial(4), segmentwise=True),
    "artbp_polynomial_6": EstimatorSpec(_polynomial(6), segmentwise=True),
    "artbp_geometric": EstimatorSpec(_artbp(truncation.geometric), segmentwise=True),
    "random_truncation": EstimatorSpec(
        _build(random_truncation, lambda n: {"keep_probability": 1 - 1 / n}), segmentwise=True
    ),
    "unbiased_tbptt": EstimatorSpec(_build(unbiased_tbptt, _unbiased_options)),
    "rtrl": EstimatorSpec(_every(rtrl, "update_every"), random=False),
    "snap1": EstimatorSpec(_every(snap1, "update_every"), "sparsity", random=False),
    "uoro": EstimatorSpec(_every(uoro, "update_every")),
    "forward_gradient": EstimatorSpec(_every(forward_gradient, "update_every")),
    "truncated_es": EstimatorSpec(
        _every(truncated_es, "truncation_length"), "truncation and smoothing", black_box=True
    ),
    "pes": EstimatorSpec(_every(pes, "truncation_length"), "smoothing", black_box=True),
    "gpes": EstimatorSpec(
        _build(gpes, lambda n: {"truncation_length": n, "draw_every": 2 * n}),
        "smoothing",
        black_box=True,
    ),
    "nres": EstimatorSpec(_every(nres, "truncation_length"), "smoothing", black_box=True),
}
"""Maps the name of every estimator that takes any cell, all but `diagonal_rtrl`, to its spec.

The shared tests run over it.
"""
