"""Adaptive truncation: TBPTT whose truncation length follows the measured decay of gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from artbp import _tree
from artbp._checks import check_positive
from artbp.estimators.base import EstimatorState, GradientEstimator
from artbp.estimators.carry_ring import run_backward, run_forward, steps_so_far
from artbp.estimators.stepwise import Advance, Steps, stepwise
from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import LossFn

# The weight of earlier measurements in the running means.
_MEMORY = 0.9


class AdaptiveState(NamedTuple):
    """The running sums of `adaptive_tbptt`, and the K that it chose from them."""

    carries: Any  # that entered the last steps, a ring buffer, see `carry_ring`
    num_steps: jax.Array  # int32, of the present sequence so far: no window is longer
    truncation_length: jax.Array  # int32, K of the next estimate
    lag_norms: jax.Array  # `[R]`, running sums of γ_1, …, γ_R
    weight: jax.Array  # the running sum of ones
    mean_gradient: Any  # running sum of the gradient per time step, like params
    gradient_weight: jax.Array  # of ones
    decay_rate: jax.Array  # β; infinite before the first measurement, as the next
    relative_bias: jax.Array  # δ at K


def adaptive_tbptt(
    cell: Cell,
    loss_fn: LossFn,
    *,
    tolerance: float = 0.1,
    first_length: int = 16,
    shortest: int = 2,
    longest: int = 256,
    fitted_from: int = 8,
    measured_lags: int = 64,
    measure_every: int = 4,
    normalizer: float = 1.0,
) -> GradientEstimator:
    """TBPTT(K, 2K) that chooses the smallest K whose relative bias is below a tolerance.

        γ_k  = ‖(∂F_{s−k+1}/∂θ)ᵀ ∂ℓ_s/∂s_{s−k+1}‖, averaged over the measured steps s
        β    = exp(slope of log γ_k over k = τ, …, R)
        E(K) = Σ_{K<k≤R} γ_k + γ_τ β^(max(K,R)+1−τ) / (1 − β)      = Σ_{k>K} γ_k for this decay
        δ(K) = E(K) / (‖ĝ‖ − E(K)),    K = min {K : δ(K) < tolerance}

    One estimate is K steps and looks back 2K, so each loss is backpropagated at least K steps.
    Every `measure_every` estimates the loss of the last step is backpropagated R steps, and K is
    chosen anew. If δ stays above the tolerance, or nothing decays (β ≥ 1), K is `longest`.
    Windows and measurements use the stored carries with the present weights (mode "stored" of
    `artbp.tbptt_k1_k2`).

    The bias is about the tolerance if gradients decay as fitted. As the gradient vanishes, the
    relative bias and K grow. A dependency that the model has not learnt yet adds nothing to γ, so K
    stays short.

    It differs from the paper in three ways. The paper measures φ_k = ‖∂ℓ_s/∂s_{s−k}‖ and needs a
    bound on ∂F/∂θ; here the parts of the gradient are measured directly. The fit is used beyond lag
    R only. ‖ĝ‖ is the norm of the running mean of the gradient per time step.

    `info.extra` holds `truncation_length` (K of this estimate), `next_truncation_length`,
    `decay_rate` (β) and `relative_bias` (δ at the next K); infinite before the first measurement.

    Args:
      cell, loss_fn, normalizer: as for `artbp.artbp`.
      tolerance: the largest relative bias δ.
      first_length: K until the first measurement.
      shortest, longest: limits of K. Memory: max(2 · longest, R + 1) carries.
      fitted_from: τ, the first lag of the geometric fit.
      measured_lags: R ≥ τ + 2, the lags of a measurement. On a stream of R steps or fewer, no
        measurement is made, and K stays `first_length`.
      measure_every: estimates between measurements; a measurement takes R + 1 backward steps.

    Raises:
      ValueError: lengths that are not integers ≥ 1 or not in order; a tolerance ≤ 0.

    Source: Aicher, Foti & Fox, "Adaptively Truncating Backpropagation Through Time to Control
    Gradient Bias" (arXiv 1905.07473).
    """
    limits = {"first_length": first_length, "shortest": shortest, "longest": longest}
    check_positive(integer=True, **limits, fitted_from=fitted_from)
    check_positive(integer=True, measured_lags=measured_lags, measure_every=measure_every)
    check_positive(tolerance=tolerance)
    if not shortest <= first_length <= longest:
        raise ValueError(
            f"first_length={first_length}; expected shortest={shortest} ≤ first_length ≤ "
            f"longest={longest}. Change one of them."
        )
    if measured_lags < fitted_from + 2:
        raise ValueError(
            f"measured_lags={measured_lags}, fitted_from={fitted_from}: the fit of the slope "
            "takes three lags or more; expected measured_lags ≥ fitted_from + 2."
        )
    ring_size = max(2 * longest, measured_lags + 1)

    def begin(params: Any, carry: Any) -> AdaptiveState:
        number = jnp.zeros((), jnp.result_type(float))
        return AdaptiveState(
            carries=_tree.repeat(carry, ring_size),
            num_steps=jnp.zeros((), jnp.int32),
            truncation_length=jnp.asarray(first_length, jnp.int32),
            lag_norms=jnp.zeros((measured_lags,), number.dtype),
            weight=jnp.copy(number),
            mean_gradient=_tree.zero_sums(params),
            gradient_weight=jnp.copy(number),
            decay_rate=number + jnp.inf,
            relative_bias=number + jnp.inf,
        )

    def advance(
        steps: Steps, params: Any, state: EstimatorState, end: jax.Array, rng_key: jax.Array
    ) -> Advance:
        del rng_key
        first, adaptive = jnp.asarray(state.position), state.inner_state
        length, ring = adaptive.truncation_length, adaptive.carries
        result = run_forward(
            steps, params, state.carry, ring, first, end, length, size=ring_size, new=first
        )
        ring, num_steps = result.inner_state, steps_so_far(adaptive.num_steps, first, end)
        grads = run_backward(
            steps,
            lambda t: params,
            ring,
            end - jnp.minimum(2 * length, num_steps),
            end,
            result.grads,
            size=ring_size,
            weight=lambda t: jnp.where(t >= first, 1.0, 0.0),
        )
        adaptive = adaptive._replace(carries=ring, num_steps=num_steps)
        adaptive = _add_gradient(adaptive, grads, end - first)
        # A measurement needs R steps before the step whose loss it follows.
        is_due = ((state.num_estimates + 1) % measure_every == 0) & (num_steps > measured_lags)
        adaptive = lax.cond(
            is_due, lambda old: choose(measure(steps, params, old, end)), lambda old: old, adaptive
        )
        extra = {
            "truncation_length": length,
            "next_truncation_length": adaptive.truncation_length,
            "decay_rate": adaptive.decay_rate,
            "relative_bias": adaptive.relative_bias,
        }
        return result._replace(grads=grads, inner_state=adaptive, extra=extra)

    def measure(steps: Steps, params: Any, state: AdaptiveState, end: jax.Array) -> AdaptiveState:
        """Backpropagates the loss of step end − 1 through R steps and adds the norms by lag."""

        def add_norm(norms: jax.Array, j: jax.Array, grads: Any, entering: Any) -> jax.Array:
            del entering
            return norms.at[measured_lags - j].set(optax.tree.norm(grads).astype(norms.dtype))

        # Lag 0 is the step itself, whose gradient no truncation removes.
        count = measured_lags + 1
        norms = run_backward(
            steps,
            lambda t: params,
            state.carries,
            end - count,
            end,
            jnp.zeros((count,), state.lag_norms.dtype),
            size=ring_size,
            weight=lambda t: jnp.where(t == end - 1, 1.0, 0.0),
            count=count,
            collect=add_norm,
        )
        lag_norms = _MEMORY * state.lag_norms + (1 - _MEMORY) * norms[1:]
        new = state._replace(lag_norms=lag_norms, weight=_MEMORY * state.weight + (1 - _MEMORY))
        return _tree.select(jnp.isfinite(jnp.sum(norms)), new, state)

    def choose(state: AdaptiveState) -> AdaptiveState:
        norms = state.lag_norms / state.weight
        gradient = optax.tree.norm(state.mean_gradient).astype(norms.dtype) / state.gradient_weight
        lengths = jnp.arange(1, longest + 1, dtype=jnp.int32)
        decay_rate = fitted_decay_rate(norms, fitted_from)
        bias = bias_bound(norms, decay_rate, fitted_from, lengths)
        relative = jnp.where(gradient > bias, bias / (gradient - bias), jnp.inf)
        good = (relative < tolerance) & (lengths >= shortest)
        index = jnp.where(jnp.any(good), jnp.argmax(good), longest - 1)
        chosen = {"truncation_length": lengths[index], "relative_bias": relative[index]}
        new = state._replace(decay_rate=decay_rate, **chosen)
        return _tree.select(state.weight > 0, new, state)  # no measurement has been finite yet

    def update_every(state: AdaptiveState) -> jax.Array:
        return state.truncation_length

    # Measurements describe the model, not the pass.
    return stepwise(
        cell,
        loss_fn,
        update_every,
        begin,
        advance,
        normalizer,
        resets_at_end=False,
        undivided="adaptive_tbptt chooses its truncation length from the gradient of all rows",
    )


def fitted_decay_rate(lag_norms: jax.Array, fitted_from: int) -> jax.Array:
    """Fits β = exp(slope) by least squares to log γ_k, k = τ, …, R, where γ_k > 0.

    `lag_norms` are γ_1, …, γ_R and `fitted_from` is τ. Returns 0 if fewer than two are positive.
    """
    tail = lag_norms[fitted_from - 1 :]
    used = (tail > 0).astype(tail.dtype)
    count = jnp.maximum(jnp.sum(used), 1)
    logs = jnp.log(jnp.where(tail > 0, tail, jnp.ones_like(tail)))
    lags = jnp.arange(tail.shape[0], dtype=tail.dtype)
    lags = used * (lags - jnp.sum(used * lags) / count)
    spread = jnp.sum(lags**2)
    slope = jnp.sum(lags * logs) / jnp.where(spread > 0, spread, jnp.ones_like(spread))
    return jnp.where(spread > 0, jnp.exp(slope), jnp.zeros_like(slope))


def bias_bound(
    lag_norms: jax.Array, decay_rate: jax.Array, fitted_from: int, lengths: jax.Array
) -> jax.Array:
    """E(K) for each K of `lengths`: measured up to lag R, geometric beyond; infinite if β ≥ 1."""
    num_lags = lag_norms.shape[0]
    decays = decay_rate < 1
    rate = jnp.where(decays, decay_rate, jnp.full_like(decay_rate, 0.5))
    # γ_k = γ_τ β^(k − τ), summed over k > max(K, R).
    beyond = (jnp.maximum(lengths, num_lags) + 1 - fitted_from).astype(lag_norms.dtype)
    tail = lag_norms[fitted_from - 1] * rate**beyond / (1 - rate)
    lags = jnp.arange(1, num_lags + 1, dtype=lengths.dtype)
    cut_off = lags[None, :] > lengths[:, None]
    measured = jnp.sum(jnp.where(cut_off, lag_norms[None, :], jnp.zeros((), tail.dtype)), axis=1)
    return jnp.where(decays, measured + tail, jnp.full_like(tail, jnp.inf))


def _add_gradient(state: AdaptiveState, grads: Any, num_steps: jax.Array) -> AdaptiveState:
    count = num_steps.astype(state.gradient_weight.dtype)

    def running_sum(mean: jax.Array, grad: jax.Array) -> jax.Array:
        return _MEMORY * mean + (1 - _MEMORY) * (grad / count.astype(grad.dtype)).astype(mean.dtype)

    added = state._replace(
        mean_gradient=jax.tree.map(running_sum, state.mean_gradient, grads),
        gradient_weight=_MEMORY * state.gradient_weight + (1 - _MEMORY),
    )
    # A gradient that is not finite would never leave the running mean.
    return _tree.select(jnp.isfinite(optax.tree.norm(grads)), added, state)
