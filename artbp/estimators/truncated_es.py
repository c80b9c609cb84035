"""Truncated evolution strategies: TBPTT without derivatives.

    g = 1/(2 M σ²) Σ_m ε_m (L(s, θ + ε_m) − L(s, θ − ε_m)),    ε_m ~ N(0, σ²)

L is the loss of the next K steps from the carry s that the unperturbed system has reached. What θ
has done to s before is not seen: the bias of TBPTT K.

Source: the estimator called "ES" in Vicol, Metz & Sohl-Dickstein, arXiv 2112.13835.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.estimators.base import GradientEstimator
from artbp.estimators.perturbed import both_signs, draw_perturbations, unrolled, weighted_sum
from artbp.estimators.stepwise import Advance, Steps, stepwise
from artbp.unrolls.checks import Cell, check_positive
from artbp.unrolls.readout import LossFn


def truncated_es(
    cell: Cell,
    loss_fn: LossFn,
    *,
    truncation_length: int,
    num_pairs: int = 32,
    scale: float = 0.01,
    normalizer: float = 1.0,
) -> GradientEstimator:
    """Evolution strategies on unrolls of K steps, with antithetic pairs.

        g = 1/(2 M σ²) Σ_m ε_m (L(s, θ + ε_m) − L(s, θ − ε_m)),    ε_m ~ N(0, σ²)

    In expectation the gradient of TBPTT K, of a loss that is smoothed: averaged over θ + ε. Neither
    the cell nor the loss needs a derivative. Each estimate runs K steps 2 M + 1 times.

    Args:
      cell, loss_fn, normalizer: as for `artbp.artbp`; black boxes, of any kind.
      truncation_length: K, in time steps.
      num_pairs: M.
      scale: σ, the standard deviation of the perturbations of every parameter. Small: less
        smoothing; too small: the difference of two losses is lost in rounding.

    Raises:
      ValueError: truncation_length or num_pairs is not an integer ≥ 1, or scale is not above 0.
      TypeError: from `estimate`, params that are complex or narrower than float32.

    Source: Vicol, Metz & Sohl-Dickstein, arXiv 2112.13835.
    """
    check_positive(truncation_length=truncation_length, num_pairs=num_pairs, integer=True)
    check_positive(scale=scale)

    def advance(
        steps: Steps,
        params: Any,
        carry: Any,
        inner_state: Any,
        first: jax.Array,
        end: jax.Array,
        rng_key: jax.Array,
    ) -> Advance:
        def run(perturbation: Any) -> Any:
            perturbed = jax.tree.map(jnp.add, params, perturbation)
            return unrolled(steps, perturbed, carry, first, end, truncation_length)

        drawn = draw_perturbations(rng_key, params, num_pairs, scale)
        losses = jax.vmap(run)(both_signs(drawn)).loss_sum
        differences = losses[:num_pairs] - losses[num_pairs:]
        grads = weighted_sum(differences / (2 * num_pairs * scale**2), drawn)
        own = run(_tree.zeros_like(params))
        return Advance(grads, own.carry, inner_state, own.loss_sum, own.num_losses)

    return stepwise(
        cell,
        loss_fn,
        update_every=truncation_length,
        begin=lambda params, carry: (),
        advance=advance,
        normalizer=normalizer,
    )
