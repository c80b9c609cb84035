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


def _bptt(cell: Any, loss_fn: Any, mean_length: int, **options: Any) -> GradientEstimator:
    del mean_length
    return bptt(cell, loss_fn, **options)


def _tbptt(**fixed: Any) -> Any:
    def build(cell: Any, loss_fn: Any, mean_length: int, **options: Any) -> GradientEstimator:
        return tbptt(cell, loss_fn, truncation_length=mean_length, **fixed, **options)

    return build


def _tbptt_k1_k2(reach: float, **fixed: Any) -> Any:
    """k1 is the mean length, k2 that times `reach`."""

    def build(cell: Any, loss_fn: Any, mean_length: int, **options: Any) -> GradientEstimator:
        k2 = max(1, round(reach * mean_length))
        return tbptt_k1_k2(cell, loss_fn, k1=mean_length, k2=k2, **fixed, **options)

    return build


def _artbp(law: Callable[[float], truncation.TruncationLaw], **fixed: Any) -> Any:
    def build(cell: Any, loss_fn: Any, mean_length: int, **options: Any) -> GradientEstimator:
        return artbp(cell, loss_fn, law(mean_length), **fixed, **options)

    return build


def _polynomial(alpha: float) -> Callable[[float], truncation.TruncationLaw]:
    return lambda mean_length: truncation.polynomial(mean_length, alpha)


def _random_truncation(
    cell: Any, loss_fn: Any, mean_length: int, **options: Any
) -> GradientEstimator:
    return random_truncation(cell, loss_fn, keep_probability=1 - 1 / mean_length, **options)


def _awd_lstm(
    cell: Any, loss_fn: Any, mean_length: int, normalizer: float = 1.0, **options: Any
) -> GradientEstimator:
    del normalizer  # it divides by the number of losses of a segment
    spread = {"deviation": mean_length / 14, "shortest": max(1, mean_length // 14)}  # 5 of 70
    return awd_lstm_bptt(cell, loss_fn, base_length=mean_length, **spread, **options)


def _adaptive(cell: Any, loss_fn: Any, mean_length: int, **options: Any) -> GradientEstimator:
    return adaptive_tbptt(
        cell,
        loss_fn,
        first_length=mean_length,
        shortest=1,
        longest=16 * mean_length,
        fitted_from=mean_length,
        measured_lags=4 * mean_length,
        **options,
    )


def _every(estimator: Callable[..., GradientEstimator], name: str) -> Any:
    """`name` is the argument that takes the number of steps between updates."""

    def build(cell: Any, loss_fn: Any, mean_length: int, **options: Any) -> GradientEstimator:
        return estimator(cell, loss_fn, **{name: mean_length}, **options)

    return build


REGISTRY: dict[str, EstimatorSpec] = {
    "bptt": EstimatorSpec(_bptt, random=False, segmentwise=True),
    "tbptt": EstimatorSpec(_tbptt(), "truncation", random=False, segmentwise=True),
    "tbptt_drawn_offset": EstimatorSpec(_tbptt(draw_offset=True), "truncation", segmentwise=True),
    "tbptt_short_window": EstimatorSpec(_tbptt_k1_k2(0.5), "truncation", random=False),
    "tbptt_stored": EstimatorSpec(_tbptt_k1_k2(2), "truncation", random=False),
    "tbptt_past_weights": EstimatorSpec(
        _tbptt_k1_k2(2, mode="past_weights"), "truncation", random=False
    ),
    "tbptt_reforward": EstimatorSpec(_tbptt_k1_k2(2, mode="reforward"), "truncation", random=False),
    "tbptt_window_losses": EstimatorSpec(
        _tbptt_k1_k2(2, losses="window"), "truncation", random=False
    ),
    "adaptive_tbptt": EstimatorSpec(_adaptive, "truncation", random=False),
    "awd_lstm_bptt": EstimatorSpec(_awd_lstm, "truncation", segmentwise=True, sums=False),
    "uncompensated_polynomial_4": EstimatorSpec(
        _artbp(_polynomial(4), compensate=False), "truncation", segmentwise=True
    ),
    "artbp_polynomial_4": EstimatorSpec(_artbp(_polynomial(4)), segmentwise=True),
    "artbp_polynomial_6": EstimatorSpec(_artbp(_polynomial(6)), segmentwise=True),
    "artbp_geometric": EstimatorSpec(_artbp(truncation.geometric), segmentwise=True),
    "random_truncation": EstimatorSpec(_random_truncation, segmentwise=True),
    "rtrl": EstimatorSpec(_every(rtrl, "update_every"), random=False),
    "snap1": EstimatorSpec(_every(snap1, "update_every"), "sparsity", random=False),
    "uoro": EstimatorSpec(_every(uoro, "update_every")),
    "truncated_es": EstimatorSpec(
        _every(truncated_es, "truncation_length"),
        "truncation and smoothing",
        black_box=True,
    ),
    "pes": EstimatorSpec(_every(pes, "truncation_length"), "smoothing", black_box=True),
}
