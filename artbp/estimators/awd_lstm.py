"""The variable-length BPTT of AWD-LSTM: random lengths, no compensation, a scaled learning rate."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from artbp import _tree
from artbp._checks import check_number, check_positive
from artbp._scaling import scale_by_argument
from artbp.estimators.base import (
    ChunkedEstimator,
    EstimatorState,
    GradientEstimator,
    Plan,
    Result,
    join_extra,
)
from artbp.estimators.segmentwise import segmentwise
from artbp.stream import Stream
from artbp.truncation.deterministic import check_length
from artbp.unrolls.checks import Cell
from artbp.unrolls.functions import Functions
from artbp.unrolls.policies import Policy
from artbp.unrolls.readout import LossFn


def awd_lstm_bptt(
    cell: Cell,
    loss_fn: LossFn,
    *,
    base_length: int = 70,
    half_probability: float = 0.05,
    deviation: float = 5.0,
    shortest: int = 5,
    policy: Policy | None = None,
    block_size: int = 256,
) -> GradientEstimator:
    """Truncated BPTT that draws a random length for each segment, as AWD-LSTM does.

        base   = base_length, or with probability `half_probability` base_length / 2
        length = max(shortest, ⌊N(base, deviation²)⌋)
        g      = the gradient of the *mean* loss of the segment (loss_sum / num_losses),
                 cut at both ends
        rate   = learning rate of the optimiser × length / base_length

    The optimiser implements the last line: `artbp.scale_by_learning_rate_factor` applies the factor
    `info.extra["learning_rate_factor"]`. With plain SGD the mean times the length is a sum again,
    so the method equals TBPTT with random boundaries and a constant normaliser.

    Random lengths move the cuts around, but nothing compensates for them: the gradient is as biased
    as that of TBPTT with segments of this size. Unlike other estimators, its gradients do not sum
    to the gradient of the sequence: each is the mean over its own segment.

    Args:
      cell, loss_fn, policy, block_size: as for `artbp.artbp`.
      base_length: in time steps; 70 in the paper's runs on Penn Treebank.
      half_probability: the probability of base_length / 2.
      deviation: standard deviation of the length, in time steps.
      shortest: least length; only the last segment of the stream may be shorter.

    Raises:
      ValueError: lengths that are not integers ≥ 1, a probability outside [0, 1], a deviation ≤ 0.

    Source: Merity, Keskar & Socher, "Regularizing and Optimizing LSTM Language Models" (arXiv
    1708.02182), section "Variable length backpropagation sequences", and its code.
    """
    base, least = check_length(base_length, "base_length"), check_length(shortest, "shortest")
    check_positive(deviation=deviation)
    check_number(0, 1, half_probability=half_probability)

    def length_of(rng_key: jax.Array, n: jax.Array, limit: Any) -> jax.Array:
        del limit
        key_half, key_length = jax.random.split(jax.random.fold_in(rng_key, n))
        is_half = jax.random.uniform(key_half, (), jnp.float32) < half_probability
        mean = jnp.where(is_half, jnp.float32(base / 2), jnp.float32(base))
        drawn = mean + jnp.float32(deviation) * jax.random.normal(key_length, (), jnp.float32)
        return jnp.maximum(jnp.floor(drawn).astype(jnp.int32), least)

    def next_length(rng_key: jax.Array, n: jax.Array, at_start: jax.Array, limit: int) -> jax.Array:
        del at_start
        return length_of(rng_key, n, limit)

    functions, plan = Functions(cell, loss_fn), Plan(length_of)
    summed = segmentwise(functions, next_length, 1.0, policy, block_size, plan)

    @jax.jit
    def mean_and_factor(grads: Any, num_losses: jax.Array, length: jax.Array) -> tuple[Any, Any]:
        def mean(grad: jax.Array) -> jax.Array:
            wide = grad.astype(_tree.at_least_float32(grad.dtype))
            return (wide / jnp.maximum(num_losses, 1).astype(wide.dtype)).astype(grad.dtype)

        return jax.tree.map(mean, grads), length.astype(jnp.result_type(float)) / base

    def estimate(params: Any, state: EstimatorState, stream: Stream) -> Result:
        grads, state, info = summed.estimate(params, state, stream)
        grads, factor = mean_and_factor(grads, info.num_losses, info.length)
        extra = join_extra({"learning_rate_factor": factor}, info.extra)
        return grads, state, info._replace(extra=extra)

    return ChunkedEstimator(summed.init, estimate, plan)


def scale_by_learning_rate_factor() -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by the factor of `awd_lstm_bptt`; put it last in the chain::

        optimizer = optax.chain(optax.adam(1e-3), artbp.scale_by_learning_rate_factor())
        factor = info.extra["learning_rate_factor"]
        updates, opt_state = optimizer.update(grads, opt_state, learning_rate_factor=factor)

    Raises:
      TypeError: from `update`, without learning_rate_factor.
    """
    return scale_by_argument(
        "scale_by_learning_rate_factor",
        "learning_rate_factor",
        'optimizer.update(..., learning_rate_factor=info.extra["learning_rate_factor"])',
    )
