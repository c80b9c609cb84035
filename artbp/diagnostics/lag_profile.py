"""Lag profiles: how gradients shrink with lag, and how perturbations of the carry grow."""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from artbp import _tree
from artbp._checks import check_flag, check_function, check_integer, check_key, check_positive
from artbp.diagnostics.lag_gradients import (
    UnrolledWindow,
    lag_gradients,
    lag_projections,
    random_signs,
    row_products,
    step_at,
    unroll_window,
)
from artbp.estimators.adaptive import bias_bound, fitted_decay_rate
from artbp.estimators.stepwise import Steps
from artbp.stream import Stream, steps_to_run
from artbp.unrolls.checks import Cell, check_finite, check_params, check_stream
from artbp.unrolls.readout import LossFn


class LagProfile(NamedTuple):
    """The result of `lag_profile`. NumPy float64; R = num_lags.

    Attributes:
      lags: k = 1, …, R, in time steps; the axis of the next three arrays.
      loss_norms: `[R]`, ‖∂ℓ_t/∂s_{t−k}‖ of one row's whole carry, averaged over rows and over t.
      gradient_norms: `[R]`, γ_k = ‖(∂F_{t−k}/∂θ)ᵀ ∂ℓ_t/∂s_{t−k}‖ with ℓ_t summed over rows,
        averaged over t.
      bias_bounds: `[R]`, E(K) = Σ_{k>K} γ_k at K = k. A look-back of K steps loses at most this
        much of the gradient per time step, if lags beyond R decay as fitted.
      gram: `[R, R]`, mean over u of ⟨G_{u,m}, G_{u,m'}⟩ for m, m' = 0, …, R − 1: the input of
        `artbp.truncation.streaming_variance` and `artbp.contrib.optimal_law`. With per_row, the sum
        of the Gram matrices of the rows, for rows that draw independent boundaries.
      fitted_from: the first lag of the fit.
      decay_rate: β, the factor per step of γ_k from `fitted_from` on; least squares on log γ_k.
      time_constant: −1/ln β in time steps; ∞ where nothing decays.
      growth_rate: the leading Lyapunov exponent: mean log growth of a perturbation per step.
      dynamics: "exploding" if growth_rate · R > 1, "vanishing" if it is < −1, else "long memory":
        over R steps, a perturbation changes by less than a factor e. Danger: where one step
        overflows float32, the result is "vanishing"; measure such a system in float64.
    """

    lags: np.ndarray
    loss_norms: np.ndarray
    gradient_norms: np.ndarray
    bias_bounds: np.ndarray
    gram: np.ndarray
    fitted_from: int
    decay_rate: float
    time_constant: float
    growth_rate: float
    dynamics: Literal["exploding", "long memory", "vanishing"]


def lag_profile(
    cell: Cell,
    loss_fn: LossFn,
    params: Any,
    carry: Any,
    stream: Stream,
    *,
    num_lags: int,
    rng_key: jax.Array,
    initial_carry: Any = None,
    num_samples: int | None = None,
    num_probes: int | None = None,
    fitted_from: int | None = None,
    per_row: bool = False,
) -> LagProfile:
    """Measures how gradients on a window shrink with lag, as a guide for the choice of K or L0.

        γ_k   = mean over t of ‖(∂F_{t−k}/∂θ)ᵀ ∂ℓ_t/∂s_{t−k}‖      one loss, k steps back
        Γ_mm' = mean over u of ⟨G_{u,m}, G_{u,m'}⟩                  all later losses, m steps back

    Lag 1 is the carry that enters step t. There is no lag 0: ℓ_t is a function of y_t, which need
    not be a function of the carry after step t.

    Only complete profiles count: t has R steps before it, and u has R steps up to it and at least R
    losses after it. The cotangents b_u omit later losses, which contribute less than lag R does.

    Cost: one backward pass of R steps with weight gradients per t and per u. Memory: 2·T carries
    and, if num_probes is None, R gradients.

    Args:
      cell, loss_fn, params: as for `artbp.artbp`.
      carry: the carry that enters the first step to run (that after `stream.history`).
      stream: the window; its steps to run.
      num_lags: R ≥ 3.
      rng_key: draws the steps, the probes and the perturbation; consumed.
      initial_carry: the carry after a reset. Default: zeros, as in `artbp.unroll`.
      num_samples: number of t and of u, drawn without replacement. None: all.
      num_probes: number of random directions per step that estimate the Gram without bias and
        without storing R gradients. None: the exact Gram.
      fitted_from: the first lag of the fit. Default: R/4.
      per_row: see `LagProfile.gram`. Danger: rows must then not interact in the cell.

    Raises:
      TypeError, ValueError: as `estimate` of `artbp.artbp`; fewer than 2·R steps; a bad option.

    Source: γ and E(K): Aicher, Foti & Fox, arXiv 1905.07473, with the differences that
    `artbp.adaptive_tbptt` states. Lyapunov exponent: Benettin et al., Meccanica 15 (1980).
    """
    check_integer(3, num_lags=num_lags)
    check_function(cell=cell, loss_fn=loss_fn)
    check_params(params)
    check_finite(params)
    check_key(rng_key)
    check_flag(per_row=per_row)
    fitted_from = max(1, num_lags // 4) if fitted_from is None else fitted_from
    numbers = {"num_samples": num_samples, "num_probes": num_probes, "num_lags": num_lags}
    given = {name: number for name, number in numbers.items() if number is not None}
    check_positive(integer=True, **given, fitted_from=fitted_from)
    if num_lags < fitted_from + 2:
        raise ValueError(
            f"{num_lags=}, {fitted_from=}; the fit of the slope takes three lags or more: expected "
            "num_lags ≥ fitted_from + 2."
        )
    check_stream(stream)
    stream = steps_to_run(stream)
    if stream.num_steps < 2 * num_lags:
        raise ValueError(
            f"The stream has {stream.num_steps} steps and num_lags={num_lags}; expected "
            "num_steps ≥ 2 · num_lags, so that every profile is complete."
        )
    window = unroll_window(cell, loss_fn, params, carry, stream, initial_carry, per_row)
    if not jax.tree.leaves(window.cotangents):
        raise ValueError(
            "The carry has no floats, so no gradient flows back through time and there is no "
            "profile of it. Expected a carry with float leaves."
        )
    loss_key, gram_key, probe_key, growth_key = jax.random.split(rng_key, 4)
    loss_steps = _draw(loss_key, num_lags, stream.num_steps, num_samples)
    gram_steps = _draw(gram_key, num_lags, stream.num_steps - num_lags + 1, num_samples)

    by_lag = [_norms_by_lag(window, t, num_lags) for t in loss_steps]
    loss_norms, gradient_norms = np.mean(np.asarray(by_lag, np.float64), axis=0)

    if not np.isfinite([loss_norms[0], gradient_norms[0]]).all():  # later ones may explode
        raise ValueError(
            "The gradient of one step is NaN or infinite, so no profile can be measured. "
            "Expected finite data. Check xs, targets, carry and params."
        )

    gram, num_parts = np.zeros((num_lags, num_lags)), len(gram_steps) * (num_probes or 1)
    for i, u in enumerate(gram_steps):
        for probe in range(num_probes or 1):
            if num_probes is None:
                found = lag_gradients(window, u, num_lags, per_row)
            else:
                key = jax.random.fold_in(jax.random.fold_in(probe_key, i), probe)
                signs = random_signs(key, window.params)
                found = lag_projections(window, u, signs, num_lags, per_row)
            flat = np.asarray(found, np.float64).reshape(num_lags, -1)
            gram += flat @ flat.T / num_parts

    lags = np.arange(1, num_lags + 1)
    norms = jnp.asarray(gradient_norms, jnp.result_type(float))
    rate = fitted_decay_rate(norms, fitted_from)
    bounds = bias_bound(norms, rate, fitted_from, jnp.asarray(lags, jnp.int32))
    decay_rate, growth = float(rate), float(_growth_rate(window, growth_key))
    with np.errstate(divide="ignore"):  # −1/ln 0 = 0; NaN, from an overflow, is no decay
        time_constant = float(-1 / np.log(decay_rate)) if decay_rate < 1 else float("inf")
    dynamics = "vanishing" if growth * num_lags < -1 else "long memory"
    return LagProfile(
        lags=lags,
        loss_norms=loss_norms,
        gradient_norms=gradient_norms,
        bias_bounds=np.asarray(bounds, np.float64),
        gram=gram,
        fitted_from=fitted_from,
        decay_rate=decay_rate,
        time_constant=time_constant,
        growth_rate=growth,
        dynamics="exploding" if growth * num_lags > 1 else dynamics,
    )


def _draw(rng_key: jax.Array, first: int, end: int, number: int | None) -> np.ndarray:
    """Returns first, …, end − 1, or `number` of them at random; int32."""
    steps = np.arange(first, end, dtype=np.int32)
    if number is None or number >= len(steps):
        return steps
    return np.asarray(jax.random.choice(rng_key, steps, (number,), replace=False), np.int32)


@partial(jax.jit, static_argnames="num_lags")
def _norms_by_lag(
    window: UnrolledWindow, t: jax.Array, num_lags: int
) -> tuple[jax.Array, jax.Array]:
    """Returns ‖∂ℓ_t/∂s_{t−k}‖ and ‖(∂F_{t−k}/∂θ)ᵀ ∂ℓ_t/∂s_{t−k}‖ of one step t, k = 1, …, R."""
    steps = Steps(window.cell, window.loss_fn, window.stream, window.initial_carry)
    floats, rest = _tree.partition(_tree.index(window.carries, t))

    def loss(floats: Any) -> jax.Array:
        _, y = steps.run(window.params, _tree.combine(floats, rest), t)
        return steps.loss(window.params, y, t)[0]

    def one_step_back(cotangent: Any, lag: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        step, floats = step_at(window, t - lag)
        grads, entering = jax.vjp(step, window.params, floats)[1](cotangent)
        norms = jnp.mean(_row_norms(cotangent, window.num_rows)), optax.tree.norm(grads)
        return entering, norms

    lags = jnp.arange(1, num_lags + 1, dtype=jnp.int32)
    return lax.scan(one_step_back, jax.grad(loss)(floats), lags)[1]


@jax.jit
def _growth_rate(window: UnrolledWindow, rng_key: jax.Array) -> jax.Array:
    """Estimates the mean log growth of a random perturbation per step, averaged over rows.

    The first quarter of the steps is left out, during which the perturbation turns to the leading
    direction. A reset replaces the carry but not the perturbation.
    """
    stream = window.stream

    def step(tangent: Any, t: jax.Array) -> tuple[Any, jax.Array]:
        carry = _tree.index(window.carries, t)
        if stream.resets is not None:
            reset = jnp.asarray(_tree.index(stream.resets, t), bool)
            carry = _tree.replace(reset, window.initial_carry, carry)
        floats, rest = _tree.partition(carry)

        def next_floats(floats: Any) -> Any:
            x = _tree.index(stream.xs, t)
            carry, _ = window.cell(window.params, _tree.combine(floats, rest), x)
            return _tree.partition(carry)[0]

        tangent = jax.jvp(next_floats, (floats,), (tangent,))[1]
        norms = _row_norms(tangent, window.num_rows)
        factor = 1 / jnp.where(norms > 0, norms, 1)
        factor = factor if window.num_rows is not None else factor[0]

        def normalize(leaf: jax.Array) -> jax.Array:
            return leaf * _tree.align(factor, leaf).astype(leaf.dtype)

        return jax.tree.map(normalize, tangent), jnp.mean(jnp.log(norms))

    tangent = optax.tree.random_like(rng_key, _tree.partition(_tree.index(window.carries, 0))[0])
    _, logs = lax.scan(step, tangent, jnp.arange(stream.num_steps, dtype=jnp.int32))
    return jnp.mean(logs[stream.num_steps // 4 :])


def _row_norms(tree: Any, num_rows: int | None) -> jax.Array:
    """Computes the norm over all leaves, `[B]`, or `[1]` without rows."""
    sizes = jax.tree.map(jnp.abs, tree)
    return jnp.sqrt(row_products(sizes, sizes, num_rows or 1))
