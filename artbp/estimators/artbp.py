"""Anticipated Reweighted Truncated Backpropagation (ARTBP).

This file chooses the draw of boundaries (`law.length_of`) and the gate (`law.compensation`). The
recursion itself is `artbp.unrolls.recursion.backpropagate`; `artbp.unroll` states it as a gate on a
plain scan.
"""

import jax

from artbp._checks import check_flag
from artbp.estimators.base import GradientEstimator, Plan
from artbp.estimators.segmentwise import SegmentStart, segmentwise
from artbp.truncation.base import TruncationLaw, check_law
from artbp.truncation.deterministic import Never
from artbp.unrolls.checks import Cell
from artbp.unrolls.functions import Functions
from artbp.unrolls.policies import Policy
from artbp.unrolls.readout import LossFn


def artbp(
    cell: Cell,
    loss_fn: LossFn,
    law: TruncationLaw,
    *,
    compensate: bool = True,
    segment_start: SegmentStart = "carried",
    normalizer: float = 1.0,
    policy: Policy | None = None,
    block_size: int = 256,
) -> GradientEstimator:
    """Truncated BPTT with random boundaries and compensated, hence unbiased, gradients.

        δ_t = ∂ℓ_t/∂s_t + gate_t · (∂F_{t+1}/∂s_t)ᵀ δ_{t+1},    gate_t = (1 − X_t)/(1 − c_t)
        g   = Σ_t (∂F_t/∂θ)ᵀ δ_t  (+ the readout's own gradient)

    Boundaries X_t are drawn forward in time, with P(X_t = 1 | earlier X) = c_t, before any loss is
    seen. Since E[gate_t | earlier X] = 1, the expectation of g is the gradient of full BPTT. This
    holds for the summed gradients of a pass of the stream, with params frozen over the pass. With
    an update at each boundary the carry comes from older params, as in every streaming method. A
    step that is not linear in the gradient, such as one of Adam or after clipping, is not an
    unbiased step.

    One estimate is one segment: the steps up to the next boundary, which all rows of the batch
    share. The carry goes on from segment to segment. The end of the stream ends the last segment,
    and the next one starts at the beginning of the stream with the carry that `init` was given. A
    reset replaces the carry by `initial_carry` of `init`, by default zeros.

    Args:
      cell: `cell(params, carry, x) -> (carry, y)`; carry any pytree, `[B, ...]` with a batch.
        The cells of `artbp.cells`, also `with_params`, have a hand-written backward pass.
      loss_fn: `loss_fn(params, y, target) -> losses` of one step, `[B]` or, without a batch, a
        scalar. It holds the readout, which then runs over many steps at once. It may return a pair
        `(losses, extra)`, where `extra` is a dictionary of further values with the shape of the
        losses, such as whether a prediction is right. They are masked or weighted as the losses
        are, summed into `info.extra`, and have no gradient.
      law: the truncation law; `artbp.truncation.polynomial(L0, alpha)` is the paper's.
      compensate: False leaves the gate at 1 between the same random boundaries. This is biased. It
        is a control that separates the effect of compensation from that of random lengths.
      segment_start: "carried" starts a segment with the carry at the end of the one before it.
        "initial" starts each segment with the carry that `init` was given, so that segments are
        independent short sequences. The estimate is then biased for the gradient of the whole
        stream. With compensate=False it is the exact gradient of the losses of these short
        sequences, so it is unbiased for their expected loss. With compensation it is the gradient
        of no loss: its expectation adds up, for each step, the effect of the params at that step on
        all later losses of a run that begins where the step's segment begins and is never cut.
      normalizer: a constant that divides the gradient, for instance L0 times the batch size.
        Dividing by the sampled length would be a bias: it is correlated with the gradient.
      policy: how segments are compiled, see `artbp.unrolls.Policy`. None: by backend. `estimate`
        can be jitted, vmapped and scanned under `dynamic`, and None then means `dynamic` (and
        allocates its scratch on every backend).
      block_size: how many steps have their residuals in memory at a time: a carry a step, or 5
        floats per unit for `artbp.cells.lstm` and `gru`; and as many carries that enter blocks. A
        longer segment is run in blocks of this size, which the backward pass computes again. This
        changes memory and time, never the gradient.

    Returns:
      A `GradientEstimator`. Under `dynamic` its state holds the buffers of a block, so donate the
      state to your jitted update. Danger: use a state only with the stream that it was run on,
      since it holds a position, and with params of the dtypes that `init` was given.

    Raises:
      TypeError: `law` is no `TruncationLaw`; `compensate` is no bool. From `init`: cell or loss_fn
        is no function; params that are not floats; a carry that holds no arrays; no key. From
        `estimate`: no `EstimatorState` or no `Stream`; resets that are not bool; a mask that is
        neither bool nor float; a cell that returns no pair; losses that are not floats; `jax.grad`
        through `estimate`.
      ValueError: a bad option. From `init`: params that are not finite; several keys; an
        `initial_carry` of another type than the carry; a carry that is a vector of the params in
        each row. From `estimate`: arrays that disagree; a cell that changes its carry's type;
        losses of the wrong shape; a state beyond the stream, of several runs, or of another
        `block_size`; a host-driven policy under tracing.

    Source: Tallec & Ollivier, "Unbiasing Truncated Backpropagation Through Time", arXiv 1705.08209.
    """
    check_law(law)
    check_flag(compensate=compensate)

    def next_length(rng_key: jax.Array, n: jax.Array, at_start: jax.Array, limit: int) -> jax.Array:
        del at_start
        return law.length_of(rng_key, n, limit)

    functions = Functions(cell, loss_fn, law.compensation if compensate else None)
    plan = None if isinstance(law, Never) else Plan(law.length_of)
    return segmentwise(functions, next_length, normalizer, policy, block_size, plan, segment_start)
