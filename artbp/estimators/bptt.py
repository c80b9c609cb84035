"""Full backpropagation through time."""

from __future__ import annotations

import jax

from artbp.estimators.base import GradientEstimator
from artbp.estimators.segmentwise import segmentwise
from artbp.truncation.base import longest
from artbp.truncation.deterministic import never
from artbp.unrolls.checks import Cell
from artbp.unrolls.policies import Policy
from artbp.unrolls.readout import LossFn
from artbp.unrolls.segment import Problem


def bptt(
    cell: Cell,
    loss_fn: LossFn,
    *,
    normalizer: float = 1.0,
    policy: Policy | None = None,
    block_size: int = 256,
    cache_size: int = 128,
) -> GradientEstimator:
    """Full BPTT: one estimate is one pass of the stream, and its gradient is exact.

        δ_t = ∂ℓ_t/∂s_t + (∂F_{t+1}/∂s_t)ᵀ δ_{t+1}

    Under the `dynamic` policy its memory does not grow with the stream, see `block_size` in
    `artbp.artbp`; the price is a second forward pass.

    Arguments, state and info are those of `artbp.artbp`, without the law.
    """

    def next_length(rng_key: jax.Array, segment: jax.Array, at_start: jax.Array) -> jax.Array:
        del rng_key, segment, at_start
        return longest()

    return segmentwise(
        Problem(cell, loss_fn, never().compensation),
        next_length,
        normalizer=normalizer,
        policy=policy,
        block_size=block_size,
        cache_size=cache_size,
    )
