"""Persistent evolution strategies (PES): truncated ES without the bias of truncation.

Source: Vicol, Metz & Sohl-Dickstein, "Unbiased Gradient Estimation in Unrolled Computation Graphs
with Persistent Evolution Strategies" (arXiv 2112.13835), Algorithm 2, with antithetic pairs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.estimators.base import GradientEstimator
from artbp.estimators.perturbed import (
    Unroll,
    antithetic_gradient,
    antithetic_pairs,
    draw_perturbations,
    run_steps,
)
from artbp.estimators.stepwise import Advance, Steps, stepwise
from artbp.unrolls.checks import Cell, check_positive
from artbp.unrolls.readout import LossFn


class Particles(NamedTuple):
    """Attributes:
    carries: of the particle +ε of every pair, then of −ε of every pair, `[2 M, ...]`.
    accumulated: ξ of the particle +ε, like params `[M, ...]`; the particle −ε has −ξ.
    """

    carries: Any
    accumulated: Any


def pes(
    cell: Cell,
    loss_fn: LossFn,
    *,
    truncation_length: int,
    num_pairs: int = 32,
    scale: float = 0.01,
    normalizer: float = 1.0,
) -> GradientEstimator:
    """PES estimates the gradient from perturbed unrolls of K steps, without truncation bias.

        ξ_m ← ξ_m + ε_m,    g = 1/(2 M σ²) Σ_m ξ_m (L_m⁺ − L_m⁻),    ε_m ~ N(0, σ²)

    Each particle continues from its own carry and draws new perturbations at each unroll. Its loss
    is attributed to ξ_m, the sum of all its perturbations since the stream began.

    With frozen params, PES is unbiased for the gradient of a smoothed loss, averaged over
    perturbations that are drawn anew at each unroll. If the loss is quadratic in θ, this is the
    gradient of the loss itself. The variance grows with the number of unrolls since the stream
    began; resets within the stream do not zero ξ. Neither cell nor loss needs a derivative. Each
    estimate runs K steps 2 M + 1 times, once for the unperturbed system that `info` describes.

    Args:
      cell, loss_fn, truncation_length, num_pairs, scale, normalizer: as for `artbp.truncated_es`.

    Raises:
      ValueError, TypeError: as `artbp.truncated_es`.

    Source: Vicol, Metz & Sohl-Dickstein, arXiv 2112.13835, Algorithm 2.
    """
    check_positive(truncation_length=truncation_length, num_pairs=num_pairs, integer=True)
    check_positive(scale=scale)

    def begin(params: Any, carry: Any) -> Particles:
        zeros = _tree.zeros_like(_tree.repeat(params, num_pairs))
        return Particles(_tree.repeat(carry, 2 * num_pairs), zeros)

    def advance(
        steps: Steps,
        params: Any,
        carry: Any,
        inner_state: Particles,
        first: jax.Array,
        end: jax.Array,
        rng_key: jax.Array,
    ) -> Advance:
        def run(perturbation: Any, carry: Any) -> Unroll:
            perturbed = jax.tree.map(jnp.add, params, perturbation)
            return run_steps(steps, perturbed, carry, first, end, truncation_length)

        drawn = draw_perturbations(rng_key, params, num_pairs, scale)
        accumulated = jax.tree.map(jnp.add, inner_state.accumulated, drawn)
        particles = jax.vmap(run)(antithetic_pairs(drawn), inner_state.carries)
        grads = antithetic_gradient(particles.loss_sum, accumulated, scale)
        unperturbed = run(_tree.zeros_like(params), carry)
        inner_state = Particles(particles.carry, accumulated)
        return Advance(
            grads, unperturbed.carry, inner_state, unperturbed.loss_sum, unperturbed.num_losses
        )

    options = {"update_every": truncation_length, "normalizer": normalizer}
    return stepwise(cell, loss_fn, begin=begin, advance=advance, **options)
