"""Full backpropagation through time."""

import jax
import jax.numpy as jnp

from artbp.estimators.base import GradientEstimator
from artbp.estimators.segmentwise import segmentwise
from artbp.unrolls.checks import Cell
from artbp.unrolls.functions import Functions
from artbp.unrolls.policies import Policy
from artbp.unrolls.readout import LossFn


def bptt(
    cell: Cell,
    loss_fn: LossFn,
    *,
    normalizer: float = 1.0,
    policy: Policy | None = None,
    block_size: int = 256,
) -> GradientEstimator:
    """Full BPTT: one estimate is one pass of the stream, and its gradient is exact.

        δ_t = ∂ℓ_t/∂s_t + (∂F_{t+1}/∂s_t)ᵀ δ_{t+1}

    Under the `dynamic` policy its memory does not grow with the stream (see `block_size` in
    `artbp.artbp`), at the price of a second forward pass.

    The arguments are those of `artbp.artbp` without `law`, `compensate` and `segment_start`. State,
    info and errors are the same.
    """

    def next_length(rng_key: jax.Array, n: jax.Array, at_start: jax.Array, limit: int) -> jax.Array:
        del rng_key, n, at_start
        return jnp.asarray(limit, jnp.int32)

    return segmentwise(Functions(cell, loss_fn), next_length, normalizer, policy, block_size)
