"""Persistent evolution strategies (PES): truncated ES without the bias of truncation.

    ξ_m ← ξ_m + ε_m,    g = 1/(M σ²) Σ_m ξ_m L_m,    ε_m ~ N(0, σ²)

Every particle m goes on from the carry that it has reached itself, with fresh perturbations at
each unroll, and its loss is credited to all perturbations since the stream began: their sum ξ_m.

Source: Vicol, Metz & Sohl-Dickstein, "Unbiased Gradient Estimation in Unrolled Computation Graphs
with Persistent Evolution Strategies" (arXiv 2112.13835), Algorithm 2, with antithetic pairs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.estimators.base import GradientEstimator
from artbp.estimators.perturbed import both_signs, draw_perturbations, unrolled, weighted_sum
from artbp.estimators.stepwise import Advance, Steps, stepwise
from artbp.unrolls.checks import Cell, check_positive
from artbp.unrolls.readout import LossFn


class Particles(NamedTuple):
    """Attributes:
    carries: of ε in every pair, then of −ε in every pair, `[2 M, ...]`.
    accumulated: ξ of every pair, like params `[M, ...]`; its twin has −ξ.
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
    """Persistent evolution strategies on unrolls of K steps, with antithetic pairs.

        ξ_m ← ξ_m + ε_m,    g = 1/(2 M σ²) Σ_m ξ_m (L_m⁺ − L_m⁻),    ε_m ~ N(0, σ²)

    Unbiased, with frozen params, for the gradient of a smoothed loss: averaged over perturbations
    that are drawn anew at each unroll. Where the loss is quadratic in θ that is the gradient of
    the loss itself. The variance grows with the number of unrolls since the stream began; resets on
    the way do not empty ξ. Neither
    the cell nor the loss needs a derivative. Each estimate runs K steps 2 M + 1 times (once for the
    loss of the unperturbed system, which `info` tells).

    Args:
      cell, loss_fn, truncation_length, num_pairs, scale, normalizer: as for `artbp.truncated_es`.

    Raises:
      ValueError, TypeError: as `artbp.truncated_es`.

    Source: Vicol, Metz & Sohl-Dickstein, arXiv 2112.13835, Algorithm 2.
    """
    check_positive(truncation_length=truncation_length, num_pairs=num_pairs, integer=True)
    check_positive(scale=scale)

    def begin(params: Any, carry: Any) -> Particles:
        return Particles(
            _tree.repeat(carry, 2 * num_pairs), _tree.zeros_like(_tree.repeat(params, num_pairs))
        )

    def advance(
        steps: Steps,
        params: Any,
        carry: Any,
        inner_state: Particles,
        first: jax.Array,
        end: jax.Array,
        rng_key: jax.Array,
    ) -> Advance:
        def run(perturbation: Any, carry: Any) -> Any:
            perturbed = jax.tree.map(jnp.add, params, perturbation)
            return unrolled(steps, perturbed, carry, first, end, truncation_length)

        drawn = draw_perturbations(rng_key, params, num_pairs, scale)
        accumulated = jax.tree.map(jnp.add, inner_state.accumulated, drawn)
        particles = jax.vmap(run)(both_signs(drawn), inner_state.carries)
        differences = particles.loss_sum[:num_pairs] - particles.loss_sum[num_pairs:]
        grads = weighted_sum(differences / (2 * num_pairs * scale**2), accumulated)
        own = run(_tree.zeros_like(params), carry)
        inner_state = Particles(particles.carry, accumulated)
        return Advance(grads, own.carry, inner_state, own.loss_sum, own.num_losses)

    return stepwise(
        cell,
        loss_fn,
        update_every=truncation_length,
        begin=begin,
        advance=advance,
        normalizer=normalizer,
    )
