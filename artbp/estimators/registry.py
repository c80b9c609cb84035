"""One row per estimator: the shared tests and the comparisons run over these."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from artbp import truncation
from artbp.estimators.adaptive import adaptive_tbptt
from artbp.estimators.artbp import artbp
from artbp.estimators.awd_lstm import awd_lstm_bptt
from artbp.estimators.base import GradientEstimator
from artbp.estimators.bptt import bptt
from artbp.estimators.pes import pes
from artbp.estimators.random_truncation import random_truncation
from artbp.estimators.rtrl import rtrl
from artbp.estimators.snap1 import snap1
from artbp.estimators.tbptt import tbptt
from artbp.estimators.tbptt_k1_k2 import tbptt_k1_k2
from artbp.estimators.truncated_es import truncated_es
from artbp.estimators.uoro import uoro

Bias = Literal["none", "truncation", "sparsity", "smoothing", "truncation and smoothing"]


class EstimatorSpec(NamedTuple):
    """An estimator and what it claims. All take any cell.

    Attributes:
      build: `build(cell, loss_fn, mean_length, **options) -> GradientEstimator`, with updates every
        `mean_length` steps on average. Options are `normalizer` and, where `segmentwise`, `policy`
        and `block_size`.
      bias: what parts its expectation over keys, with frozen params, from the BPTT gradient.
        "smoothing" vanishes with the size of the perturbations.
      random: whether keys matter.
      segmentwise: it goes through segment kernels, and back in time; the others are one program
        that takes a fixed number of steps.
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


def _every(n: int) -> dict[str, int]:
    return {"update_every": n}


def _unroll(n: int) -> dict[str, int]:
    return {"truncation_length": n}


REGISTRY: dict[str, EstimatorSpec] = {
    "bptt": EstimatorSpec(_build(bptt, lambda n: {}), random=False, segmentwise=True),
    "tbptt": EstimatorSpec(_build(tbptt, _unroll), "truncation", random=False, segmentwise=True),
    "tbptt_drawn_offset": EstimatorSpec(
        _build(tbptt, lambda n: {"truncation_length": n, "draw_offset": True}),
        "truncation",
        segmentwise=True,
    ),
    "tbptt_short_window": EstimatorSpec(_tbptt_k1_k2(0.5), "truncation", random=False),
    "tbptt_stored": EstimatorSpec(_tbptt_k1_k2(2), "truncation", random=False),
    "tbptt_past_weights": EstimatorSpec(
        _tbptt_k1_k2(2, mode="past_weights"), "truncation", random=False
    ),
    "tbptt_reforward": EstimatorSpec(_tbptt_k1_k2(2, mode="reforward"), "truncation", random=False),
    "tbptt_window_losses": EstimatorSpec(
        _tbptt_k1_k2(2, losses="window"), "truncation", random=False
    ),
    "adaptive_tbptt": EstimatorSpec(
        _build(adaptive_tbptt, _adaptive_options), "truncation", random=False
    ),
    "awd_lstm_bptt": EstimatorSpec(_awd_lstm, "truncation", segmentwise=True, sums=False),
    "uncompensated_polynomial_4": EstimatorSpec(
        _polynomial(4, compensate=False), "truncation", segmentwise=True
    ),
    "artbp_polynomial_4": EstimatorSpec(_polynomial(4), segmentwise=True),
    "artbp_polynomial_6": EstimatorSpec(_polynomial(6), segmentwise=True),
    "artbp_geometric": EstimatorSpec(_artbp(truncation.geometric), segmentwise=True),
    "random_truncation": EstimatorSpec(
        _build(random_truncation, lambda n: {"keep_probability": 1 - 1 / n}), segmentwise=True
    ),
    "rtrl": EstimatorSpec(_build(rtrl, _every), random=False),
    "snap1": EstimatorSpec(_build(snap1, _every), "sparsity", random=False),
    "uoro": EstimatorSpec(_build(uoro, _every)),
    "truncated_es": EstimatorSpec(
        _build(truncated_es, _unroll), "truncation and smoothing", black_box=True
    ),
    "pes": EstimatorSpec(_build(pes, _unroll), "smoothing", black_box=True),
}
