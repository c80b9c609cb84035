"""One row per estimator: the shared tests and the comparisons run over these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from artbp import truncation
from artbp.estimators.artbp import artbp
from artbp.estimators.base import GradientEstimator
from artbp.estimators.bptt import bptt
from artbp.estimators.tbptt import tbptt


class Row(NamedTuple):
    """An estimator and what it claims.

    Attributes:
      build: `build(cell, loss_fn, mean_length, **options) -> GradientEstimator`; options are
        `normalizer`, `policy`, `block_size`.
      unbiased: its expectation is the BPTT gradient.
      exact: its gradient over a pass of the stream is the BPTT gradient, without chance.
    """

    build: Callable[..., GradientEstimator]
    unbiased: bool
    exact: bool


def _bptt(cell: Any, loss_fn: Any, mean_length: int, **options: Any) -> GradientEstimator:
    del mean_length
    return bptt(cell, loss_fn, **options)


def _tbptt(cell: Any, loss_fn: Any, mean_length: int, **options: Any) -> GradientEstimator:
    return tbptt(cell, loss_fn, truncation_length=mean_length, **options)


def _tbptt_offset(cell: Any, loss_fn: Any, mean_length: int, **options: Any) -> GradientEstimator:
    return tbptt(cell, loss_fn, truncation_length=mean_length, draw_offset=True, **options)


def _artbp(law: Callable[[float], truncation.TruncationLaw], **fixed: Any) -> Any:
    def build(cell: Any, loss_fn: Any, mean_length: int, **options: Any) -> GradientEstimator:
        return artbp(cell, loss_fn, law(mean_length), **fixed, **options)

    return build


REGISTRY: dict[str, Row] = {
    "bptt": Row(_bptt, unbiased=True, exact=True),
    "tbptt": Row(_tbptt, unbiased=False, exact=False),
    "tbptt_drawn_offset": Row(_tbptt_offset, unbiased=False, exact=False),
    "artbp_polynomial_4": Row(
        _artbp(lambda mean: truncation.polynomial(mean, 4)), unbiased=True, exact=False
    ),
    "artbp_polynomial_6": Row(
        _artbp(lambda mean: truncation.polynomial(mean, 6)), unbiased=True, exact=False
    ),
    "artbp_geometric": Row(_artbp(truncation.geometric), unbiased=True, exact=False),
    "uncompensated_polynomial_4": Row(
        _artbp(lambda mean: truncation.polynomial(mean, 4), compensate=False),
        unbiased=False,
        exact=False,
    ),
}
