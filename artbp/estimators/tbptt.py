"""Truncated backpropagation through time with segments of fixed length."""

import jax
import jax.numpy as jnp

from artbp._checks import check_flag
from artbp.estimators.base import GradientEstimator, Plan
from artbp.estimators.segmentwise import SegmentStart, segmentwise
from artbp.truncation.deterministic import check_length
from artbp.unrolls.checks import Cell
from artbp.unrolls.functions import Functions
from artbp.unrolls.policies import Policy
from artbp.unrolls.readout import LossFn


def tbptt(
    cell: Cell,
    loss_fn: LossFn,
    *,
    truncation_length: int,
    draw_offset: bool = False,
    segment_start: SegmentStart = "carried",
    normalizer: float = 1.0,
    policy: Policy | None = None,
    block_size: int = 256,
) -> GradientEstimator:
    """Truncated BPTT(K, K): an update every K steps, looking back to the last update.

        δ_t = ∂ℓ_t/∂s_t + gate_t · (∂F_{t+1}/∂s_t)ᵀ δ_{t+1},   gate_t = 0 where K divides t, else 1

    with t = 1, 2, ... along the stream. The carry goes on across boundaries, but its gradient does
    not. Influences from before the boundary are missing from the gradient, which is therefore
    biased. `artbp.artbp` removes the bias by random boundaries.

    Args:
      cell, loss_fn, normalizer, policy, block_size: as for `artbp.artbp`.
      truncation_length: K, in time steps.
      draw_offset: if True, the first segment of each pass has a random length, uniform on 1, …, K,
        and all boundaries of the pass are shifted with it. Otherwise every pass has the same ones,
        and in many passes a large model may fit its segments instead of the data (see
        "Penn Treebank characters" in the documentation).
      segment_start: "carried" starts a segment with the carry at the end of the one before it.
        "initial" starts each segment with the carry that `init` was given: segments are independent
        short sequences, and the gradient is exactly that of their losses. It is still not the
        gradient of the losses of the whole stream.

    Raises:
      TypeError: `draw_offset` is no bool; otherwise as `artbp.artbp`.
      ValueError: `truncation_length` is no integer ≥ 1; otherwise as `artbp.artbp`.

    Source: Williams & Peng (1990); TBPTT(k1, k2) with k1 = k2 = K.
    """
    period = check_length(truncation_length, "truncation_length")
    check_flag(draw_offset=draw_offset)

    def next_length(rng_key: jax.Array, n: jax.Array, at_start: jax.Array, limit: int) -> jax.Array:
        del limit
        whole = jnp.asarray(period, jnp.int32)
        if not draw_offset:
            return whole
        steps_before = jax.random.randint(jax.random.fold_in(rng_key, n), (), 0, period, jnp.int32)
        return jnp.where(at_start, 1 + steps_before, whole)

    functions, plan = Functions(cell, loss_fn), None if draw_offset else Plan(period)
    return segmentwise(functions, next_length, normalizer, policy, block_size, plan, segment_start)
