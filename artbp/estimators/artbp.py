"""Anticipated Reweighted Truncated Backpropagation (ARTBP).

Boundaries X_t are drawn forward in time, with P(X_t = 1 | past X) = c_t, before any loss is seen.
The backward flow is cut where X_t = 1 and multiplied by 1/(1 − c_t) where it is not:

    δ_t = ∂ℓ_t/∂s_t + gate_t · (∂F_{t+1}/∂s_t)ᵀ δ_{t+1},    gate_t = (1 − X_t)/(1 − c_t)
    g   = Σ_t (∂F_t/∂θ)ᵀ δ_t  (+ the readout's own gradient)

Since E[gate_t | past X] = 1, the expectation of g is the gradient of full BPTT. In this file are
the two ingredients, the draw of X (`law.sample_length`) and the gate (`law.compensation`); the
recursion itself is `artbp.unrolls.block._backpropagate`, and as a gate on a plain scan
`artbp.unrolls.unroll`.

Source: Tallec & Ollivier, "Unbiasing Truncated Backpropagation Through Time", arXiv 1705.08209.
"""

from __future__ import annotations

import jax

from artbp.estimators.base import GradientEstimator
from artbp.estimators.segmentwise import segmentwise
from artbp.truncation.base import TruncationLaw, check_law
from artbp.truncation.deterministic import never
from artbp.unrolls.checks import Cell
from artbp.unrolls.policies import Policy
from artbp.unrolls.readout import LossFn
from artbp.unrolls.segment import Problem


def artbp(
    cell: Cell,
    loss_fn: LossFn,
    law: TruncationLaw,
    *,
    compensate: bool = True,
    normalizer: float = 1.0,
    policy: Policy | None = None,
    block_size: int = 256,
    cache_size: int = 128,
) -> GradientEstimator:
    """Truncated BPTT with random boundaries and compensated, hence unbiased, gradients.

        δ_t = ∂ℓ_t/∂s_t + gate_t · (∂F_{t+1}/∂s_t)ᵀ δ_{t+1},    gate_t = (1 − X_t)/(1 − c_t)

    One estimate is one segment: the steps up to the next boundary, which the whole batch shares.
    The carry goes on from segment to segment. At the end of the stream the last segment is
    flushed, shorter or not, and the next one starts at the beginning with the initial carry.

    What "unbiased" means: with params frozen over a pass of the stream, the summed gradients of
    its segments have the full BPTT gradient as their expectation. With an update at each
    boundary the carry comes from older params, as in every streaming method; and a step that is
    not linear in the gradient (Adam's, clipping) is not an unbiased step.

    Args:
      cell: `cell(params, carry, x) -> (carry, y)`; carry any pytree, `[B, ...]` with a batch.
        Those of `artbp.cells`, also `with_params`, are run with a backward pass written by hand.
      loss_fn: `loss_fn(params, y, target) -> losses` of one step, `[B]` or, without a batch, a
        scalar. It holds the readout, which then runs over many steps at once.
      law: the truncation law; `artbp.truncation.polynomial(L0, alpha)` is the paper's.
      compensate: False leaves the gate at 1 between the same random boundaries. That is biased:
        a control that tells the effect of compensation from that of random lengths.
      normalizer: a constant that the gradient is divided by, for instance L0 times the batch size.
        Never the sampled length: that would correlate with it and bias the gradient.
      policy: how segments are compiled, see `artbp.unrolls.Policy`. None: by backend. `estimate`
        can be jitted, vmapped and scanned under `dynamic`, and None then means `dynamic` (and
        allocates its scratch on every backend).
      block_size: how many steps are kept at a time, each with what its derivative needs: a carry,
        or for `artbp.cells.lstm` and `gru` 5 floats per unit; and as many carries that enter
        blocks. A longer segment is run in blocks of this many and recomputed on the way back. It
        changes memory and time, never the gradient.
      cache_size: compiled lengths that `exact` and `pow2` keep.

    Returns:
      A `GradientEstimator`. Its state holds, under `dynamic`, the buffers of a block; donate it to
      your jitted step. Danger: a state belongs to the stream that it was run on, and its position
      means nothing on a shorter one; and to params of the dtypes that `init` was given.

    Raises:
      ValueError: a bad option; from `init`: params that are not finite; from `estimate`: arrays
        that disagree, a cell that changes its carry's type, losses of the wrong shape.
      TypeError: law is not a `TruncationLaw`; from `init` and `estimate`: params that are not
        floats.

    Source: Tallec & Ollivier, arXiv 1705.08209.
    """
    check_law(law)

    def next_length(rng_key: jax.Array, segment: jax.Array, at_start: jax.Array) -> jax.Array:
        del at_start
        return law.length_of(rng_key, segment)

    return segmentwise(
        Problem(cell, loss_fn, law.compensation if compensate else never().compensation),
        next_length,
        normalizer=normalizer,
        policy=policy,
        block_size=block_size,
        cache_size=cache_size,
    )
