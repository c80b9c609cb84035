"""SnAp-1: RTRL that forgets all but the immediate influence of each parameter.

    J_t = M ⊙ ((∂F_t/∂s_{t−1}) J_{t−1}) + ∂F_t/∂θ

M keeps the pairs of a parameter and an entry of the carry that ∂F/∂θ connects in one step: of a
weight of an RNN, the influence on its own unit. What goes around through other units is dropped,
which is a bias.

Source: Menick et al., "A Practical Sparse Approximation for Real Time Recurrent Learning" (arXiv
2006.07232), SnAp-n with n = 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp.estimators.base import GradientEstimator
from artbp.estimators.online import StepDerivatives, online
from artbp.estimators.rtrl import credited, next_influence, no_influence
from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import LossFn


class SparseInfluence(NamedTuple):
    """`matrix` J `[P, N]`; `pattern` M, bool `[P, N]`: where ∂F/∂θ has not been zero so far."""

    matrix: jax.Array
    pattern: jax.Array


def snap1(
    cell: Cell,
    loss_fn: LossFn,
    *,
    update_every: int = 1,
    normalizer: float = 1.0,
) -> GradientEstimator:
    """SnAp-1: RTRL with the influence matrix held to the sparsity of one step.

        J_t = M ⊙ ((∂F_t/∂s_{t−1}) J_{t−1}) + ∂F_t/∂θ
        g_t = ∂ℓ_t/∂θ + J_{t−1}ᵀ ∂ℓ_t/∂s_{t−1}

    Where each unit hears only from itself (a diagonal recurrence), or where every parameter reaches
    every unit in one step, this is RTRL. Otherwise it is biased.

    M is found as the stream goes: a pair belongs to it from the first step on at which ∂F/∂θ is
    not zero. So any cell can be taken; but J is stored in full and costs what it costs in
    `artbp.rtrl`. This shows what the approximation does to a gradient, not what it saves: written
    for one cell, it needs a number or two per parameter and row.

    Args:
      cell, loss_fn, update_every, normalizer: as for `artbp.rtrl`.

    Raises:
      ValueError: as `artbp.rtrl`.

    Source: Menick et al., arXiv 2006.07232 (SnAp-1).
    """

    def begin(params: Any, floats: Any) -> SparseInfluence:
        matrix = no_influence(params, floats)
        return SparseInfluence(matrix, jnp.zeros_like(matrix, dtype=bool))

    def gradient(params: Any, influence: SparseInfluence, credit: Any) -> Any:
        return credited(params, influence.matrix, credit)

    def move_on(
        influence: SparseInfluence, derivatives: StepDerivatives, t: jax.Array, rng_key: jax.Array
    ) -> SparseInfluence:
        del t, rng_key
        transported, immediate = next_influence(influence.matrix, derivatives)
        pattern = influence.pattern | (immediate != 0)
        kept = jnp.where(pattern, transported, jnp.zeros_like(transported))
        return SparseInfluence(kept + immediate, pattern)

    return online(
        cell,
        loss_fn,
        begin=begin,
        gradient=gradient,
        move_on=move_on,
        update_every=update_every,
        normalizer=normalizer,
    )
