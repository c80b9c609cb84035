"""Persistent evolution strategies (PES): truncated ES without the bias of truncation."""

from artbp.estimators.base import GradientEstimator
from artbp.estimators.perturbed import evolution_strategy
from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import LossFn


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
    is attributed to ξ_m, the sum of all its perturbations since the stream began. ξ_m begins again
    at zero where a reset replaces the carry of all rows at the first step of an unroll: what
    follows does not depend on earlier perturbations. Other resets leave ξ_m as it is.

    With frozen params, PES is unbiased for the gradient of a smoothed loss, averaged over
    perturbations that are drawn anew at each unroll. If the loss is quadratic in θ, this is the
    gradient of the loss itself. The variance grows with the number of unrolls since ξ was zero.
    Neither cell nor loss needs a derivative. Each estimate runs K steps 2 M + 1 times, once for the
    unperturbed system that `info` describes.

    Args:
      cell, loss_fn, truncation_length, num_pairs, scale, normalizer: as for `artbp.truncated_es`.

    Raises:
      ValueError, TypeError: as `artbp.truncated_es`.

    Source: Vicol, Metz & Sohl-Dickstein, "Unbiased Gradient Estimation in Unrolled Computation
    Graphs with Persistent Evolution Strategies" (arXiv 2112.13835), Algorithm 2, with antithetic
    pairs.
    """
    return evolution_strategy(
        cell, loss_fn, truncation_length, num_pairs, scale, normalizer, persistent=True
    )
