"""Evolution strategies that reuse their noise: NRES, and GPES between it and PES."""

from artbp._checks import check_positive
from artbp.estimators.base import GradientEstimator
from artbp.estimators.perturbed import evolution_strategy
from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import LossFn


def nres(
    cell: Cell,
    loss_fn: LossFn,
    *,
    truncation_length: int,
    num_pairs: int = 32,
    scale: float = 0.01,
    normalizer: float = 1.0,
) -> GradientEstimator:
    """NRES is PES with one perturbation per pair, kept until a new sequence begins.

        g = 1/(2 M σ²) Σ_m ε_m (L_m⁺ − L_m⁻),    ε_m ~ N(0, σ²), drawn where the stream begins

    Each particle continues from its own carry, with the parameters θ ± ε_m. It draws a new ε_m
    where a reset replaces the carry of all rows at the first step of an unroll. Other resets leave
    ε_m as it is, for all rows share it.

    With frozen params, the gradients of a pass sum to an unbiased estimate of the gradient of a
    smoothed loss: the sum of all losses, averaged over θ + ε. If the loss is quadratic in θ, this
    is the gradient of the loss itself. The source reports a lower variance than PES has. Neither
    cell nor loss needs a derivative. Each estimate runs K steps 2 M + 1 times.

    Args:
      cell, loss_fn, truncation_length, num_pairs, scale, normalizer: as for `artbp.truncated_es`.

    Raises:
      ValueError, TypeError: as `artbp.truncated_es`.

    Source: Li, Harrison, Sohl-Dickstein, Smith & Metz, "Variance-Reduced Gradient Estimation via
    Noise-Reuse in Online Evolution Strategies" (arXiv 2304.12180).
    """
    return evolution_strategy(
        cell,
        loss_fn,
        truncation_length,
        num_pairs,
        scale,
        normalizer,
        persistent=True,
        unrolls_per_draw=None,
    )


def gpes(
    cell: Cell,
    loss_fn: LossFn,
    *,
    truncation_length: int,
    draw_every: int,
    num_pairs: int = 32,
    scale: float = 0.01,
    normalizer: float = 1.0,
) -> GradientEstimator:
    """GPES draws new perturbations every `draw_every` steps; the family of PES and NRES.

        ξ_m ← ξ_m + ε_m where ε_m is drawn,    g = 1/(2 M σ²) Σ_m ξ_m (L_m⁺ − L_m⁻)

    With `draw_every` equal to `truncation_length` it is `artbp.pes`; where sequences are not longer
    than `draw_every`, it is `artbp.nres`. It begins again at the same resets as these, and counts
    its steps from there. With frozen params it is unbiased for the gradient of a smoothed loss,
    averaged over perturbations that are drawn anew every `draw_every` steps.

    Args:
      draw_every: K in the source, in time steps: a multiple of `truncation_length`.
      cell, loss_fn, truncation_length, num_pairs, scale, normalizer: as for `artbp.truncated_es`.

    Raises:
      ValueError: draw_every is not a multiple of truncation_length; otherwise as
        `artbp.truncated_es`.
      TypeError: as `artbp.truncated_es`.

    Source: as for `artbp.nres`; "GPES" there.
    """
    check_positive(truncation_length=truncation_length, draw_every=draw_every, integer=True)
    unrolls, rest = divmod(int(draw_every), int(truncation_length))
    if rest:
        raise ValueError(
            f"draw_every={draw_every}; expected a multiple of truncation_length="
            f"{truncation_length}, because an unroll has one perturbation. Pass "
            f"{truncation_length * max(1, unrolls)}."
        )
    return evolution_strategy(
        cell,
        loss_fn,
        truncation_length,
        num_pairs,
        scale,
        normalizer,
        persistent=True,
        unrolls_per_draw=unrolls,
    )
