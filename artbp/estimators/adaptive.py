"""TBPTT with a truncation length that is measured: adaptive truncation.

How much of a gradient comes from k steps back is measured now and then, its decay is fitted, and
the truncation length becomes the smallest one whose relative bias is bounded by a tolerance.

Source: Aicher, Foti & Fox, "Adaptively Truncating Backpropagation Through Time to Control Gradient
Bias" (arXiv 1905.07473).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from artbp import _tree
from artbp.estimators.base import GradientEstimator
from artbp.estimators.stepwise import Advance, Steps, stepwise
from artbp.estimators.window import run_backward, run_forward
from artbp.unrolls.checks import Cell, check_positive
from artbp.unrolls.readout import LossFn

# Weight of what has been measured before, in the running means.
_MEMORY = 0.9


class Measured(NamedTuple):
    """Attributes:
    carries: those that entered the last steps, a ring, see `window`.
    truncation_length: int32, K of the next estimate; num_estimates: int32, so far.
    lag_norms: `[R]`, running sums of γ_1, …, γ_R, and `weight` that of 1.
    mean_gradient: running sum of the gradient per time step, like params, and `gradient_weight`.
    decay_rate, relative_bias: β, and the bound at K; NaN before the first measurement.
    """

    carries: Any
    truncation_length: jax.Array
    num_estimates: jax.Array
    lag_norms: jax.Array
    weight: jax.Array
    mean_gradient: Any
    gradient_weight: jax.Array
    decay_rate: jax.Array
    relative_bias: jax.Array


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
    """TBPTT(K, 2K) with K chosen so that the relative bias stays below a tolerance.

        γ_k  = ‖(∂F_{s−k+1}/∂θ)ᵀ ∂ℓ_s/∂s_{s−k+1}‖, averaged over the s that are measured
        β    = exp(slope of log γ_k over k = τ, …, R)
        E(K) = Σ_{K<k≤R} γ_k + γ_τ β^(max(K,R)+1−τ) / (1 − β)      = Σ_{k>K} γ_k, if it decays so
        δ(K) = E(K) / (‖ĝ‖ − E(K)),    K = min {K : δ(K) < tolerance}

    One estimate is K steps and looks back 2K, so each loss is followed back at least K steps. Every
    `measure_every` estimates the loss of the last step is taken back R steps, and K is chosen
    anew. Where δ stays above the tolerance, or nothing decays (β ≥ 1), K is `longest`.

    It is biased, by about the tolerance if the decay is what was fitted. As the gradient vanishes
    the relative bias grows, and K with it. What has not been learnt yet has no gradient either: a
    dependency that the model does not use adds nothing to γ, and K stays short.

    Three things differ from the paper, which measures φ_k = ‖∂ℓ_s/∂s_{s−k}‖ and bounds the bias by
    M Σ φ_k with a bound M on ∂F/∂θ: here the parts of the gradient itself are measured, so no M is
    needed; what was measured is summed as it is, and the fit serves for what lies beyond lag R; and
    ‖ĝ‖ is the norm of the running mean of the gradient per time step. Windows and measurements
    take the carries that were stored, with the weights of now (mode "stored" of
    `artbp.tbptt_k1_k2`).

    `info.extra` holds `truncation_length` (K of this estimate), `next_truncation_length`,
    `decay_rate` (β) and `relative_bias` (δ at the next K); NaN before the first measurement.

    Args:
      cell, loss_fn, normalizer: as for `artbp.artbp`.
      tolerance: the largest relative bias, δ.
      first_length: K until the first measurement.
      shortest, longest: what K is held to. Memory: max(2 · longest, R + 1) carries.
      fitted_from: τ, the lag from which on the decay is taken to be geometric.
      measured_lags: R > τ, how far back a measurement goes. On a stream of R steps or fewer none
        is ever made, and K stays `first_length`.
      measure_every: estimates between measurements; each takes R + 1 steps back.

    Raises:
      ValueError: lengths that are not integers ≥ 1 or not in order, a tolerance that is not above
        0.

    Source: Aicher, Foti & Fox, arXiv 1905.07473.
    """
    check_positive(
        first_length=first_length,
        shortest=shortest,
        longest=longest,
        fitted_from=fitted_from,
        measured_lags=measured_lags,
        measure_every=measure_every,
        integer=True,
    )
    check_positive(tolerance=tolerance)
    if not shortest <= first_length <= longest:
        raise ValueError(
            f"first_length={first_length} is not between shortest={shortest} and longest={longest}."
        )
    if measured_lags < fitted_from + 2:
        raise ValueError(
            f"measured_lags={measured_lags}, fitted_from={fitted_from}: a slope needs three lags "
            "at least; expected measured_lags ≥ fitted_from + 2."
        )

    size = max(2 * longest, measured_lags + 1)  # of the ring

    def begin(params: Any, carry: Any) -> Measured:
        number = jnp.zeros((), jnp.result_type(float))
        return Measured(
            carries=_tree.repeat(carry, size),
            truncation_length=jnp.asarray(first_length, jnp.int32),
            num_estimates=jnp.zeros((), jnp.int32),
            lag_norms=jnp.zeros((measured_lags,), number.dtype),
            weight=jnp.copy(number),
            mean_gradient=_tree.zero_sums(params),
            gradient_weight=jnp.copy(number),
            decay_rate=number * jnp.nan,
            relative_bias=number * jnp.nan,
        )

    def advance(
        steps: Steps,
        params: Any,
        carry: Any,
        measured: Measured,
        first: jax.Array,
        end: jax.Array,
        rng_key: jax.Array,
    ) -> Advance:
        del rng_key
        length = measured.truncation_length
        forward = run_forward(
            steps,
            params,
            carry,
            measured.carries,
            first,
            end,
            size=size,
            count=length,
            new=first,
        )
        start = jnp.maximum(end - 2 * length, 0)
        grads = run_backward(
            steps,
            lambda t: params,
            forward.carries,
            start,
            end,
            forward.sums,
            size=size,
            weight=lambda t: jnp.where(t >= first, 1.0, 0.0),
        )
        measured = measured._replace(
            carries=forward.carries,
            num_estimates=measured.num_estimates + jnp.ones((), jnp.int32),
        )
        measured = _add_gradient(measured, grads, end - first)
        # A measurement needs R steps, and the one whose loss it is, behind it.
        is_due = (measured.num_estimates % measure_every == 0) & (end > measured_lags)
        measured = lax.cond(
            is_due,
            lambda measured: choose(measure(steps, params, measured, end)),
            lambda measured: measured,
            measured,
        )
        extra = {
            "truncation_length": length,
            "next_truncation_length": measured.truncation_length,
            "decay_rate": measured.decay_rate,
            "relative_bias": measured.relative_bias,
        }
        return Advance(grads, forward.carry, measured, forward.loss_sum, forward.num_losses, extra)

    def measure(steps: Steps, params: Any, measured: Measured, end: jax.Array) -> Measured:
        """Takes the loss of step end − 1 back `measured_lags` steps and notes the norms."""

        def back(cotangent: Any, lag: jax.Array) -> tuple[Any, jax.Array]:
            t = end - 1 - lag
            floats, rest = _tree.partition(_tree.index(measured.carries, t % size))
            step = steps.differentiable(rest, t)
            (_, loss), pull_back, _ = jax.vjp(step, params, floats, has_aux=True)
            own = jnp.where(lag == 0, 1.0, 0.0).astype(loss.dtype)
            grads, entering = pull_back((cotangent, own))
            return entering, optax.tree.norm(grads).astype(measured.lag_norms.dtype)

        floats = _tree.partition(_tree.index(measured.carries, 0))[0]
        # Lag 0 is the step's own part, which every truncation keeps.
        lags = jnp.arange(measured_lags + 1, dtype=jnp.int32)
        _, norms = lax.scan(back, _tree.zeros_like(floats), lags)
        new = measured._replace(
            lag_norms=_MEMORY * measured.lag_norms + (1 - _MEMORY) * norms[1:],
            weight=_MEMORY * measured.weight + (1 - _MEMORY),
        )
        return _tree.select(jnp.isfinite(jnp.sum(norms)), new, measured)

    def choose(measured: Measured) -> Measured:
        norms = measured.lag_norms / measured.weight
        gradient = (
            optax.tree.norm(measured.mean_gradient).astype(norms.dtype) / measured.gradient_weight
        )
        lengths = jnp.arange(1, longest + 1, dtype=jnp.int32)
        decay_rate = fitted_decay_rate(norms, fitted_from)
        bias = bias_bound(norms, decay_rate, fitted_from, lengths)
        relative = jnp.where(gradient > bias, bias / (gradient - bias), jnp.inf)
        good = (relative < tolerance) & (lengths >= shortest)
        index = jnp.where(jnp.any(good), jnp.argmax(good), longest - 1)
        return measured._replace(
            truncation_length=lengths[index],
            decay_rate=decay_rate,
            relative_bias=relative[index],
        )

    return stepwise(
        cell,
        loss_fn,
        update_every=lambda measured: measured.truncation_length,
        begin=begin,
        advance=advance,
        normalizer=normalizer,
        resets_at_end=False,  # what has been measured is of this model, not of this pass
    )


def fitted_decay_rate(lag_norms: jax.Array, fitted_from: int) -> jax.Array:
    """β = exp(slope) of the least-squares line through log γ_k, k = τ, …, R, where γ_k > 0.

    0 where fewer than two lags are left: nothing comes from there.

    Args:
      lag_norms: γ_1, …, γ_R.
      fitted_from: τ.
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
    """E(K) for each K of `lengths`: what was measured up to lag R, a geometric tail beyond.

    Infinite where nothing decays, β ≥ 1.
    """
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


def _add_gradient(measured: Measured, grads: Any, num_steps: jax.Array) -> Measured:
    count = num_steps.astype(measured.gradient_weight.dtype)

    def running(mean: jax.Array, grad: jax.Array) -> jax.Array:
        return _MEMORY * mean + (1 - _MEMORY) * (grad / count.astype(grad.dtype)).astype(mean.dtype)

    added = measured._replace(
        mean_gradient=jax.tree.map(running, measured.mean_gradient, grads),
        gradient_weight=_MEMORY * measured.gradient_weight + (1 - _MEMORY),
    )
    # One that is not finite would stay in the mean for ever.
    return _tree.select(jnp.isfinite(optax.tree.norm(grads)), added, measured)
