"""Truncated evolution strategies: TBPTT without derivatives."""

from artbp.estimators.base import GradientEstimator
from artbp.estimators.perturbed import evolution_strategy
from artbp.unrolls.checks import Cell
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
    """Truncated ES estimates the gradient of TBPTT K from the losses of perturbed parameters.

        g = 1/(2 M σ²) Σ_m ε_m (L(s, θ + ε_m) − L(s, θ − ε_m)),    ε_m ~ N(0, σ²)

    L is the loss of the next K steps from the carry s of the unperturbed system. The estimate
    ignores how s depends on θ, which is the bias of TBPTT K. Its expectation is the gradient of
    TBPTT K for a smoothed loss, averaged over θ + ε. Neither cell nor loss needs a derivative. Each
    estimate runs K steps 2 M + 1 times.

    Args:
      cell, loss_fn, normalizer: as for `artbp.artbp`; they need not be differentiable.
      truncation_length: K, in time steps.
      num_pairs: M antithetic pairs.
      scale: σ, the standard deviation of the perturbation of each parameter. A smaller σ smooths
        less, but if it is too small, rounding dominates the difference of two losses.

    Raises:
      ValueError: truncation_length or num_pairs is not an integer ≥ 1, or scale is not above 0;
        from `estimate`, keys in the carry that are not threefry's.
      TypeError: from `estimate`, params that are complex or narrower than float32.

    Source: the estimator called "ES" in Vicol, Metz & Sohl-Dickstein, arXiv 2112.13835.
    """
    return evolution_strategy(
        cell, loss_fn, truncation_length, num_pairs, scale, normalizer, persistent=False
    )
