"""SnAp-1: RTRL whose influence matrix is restricted to the sparsity pattern of one step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp.estimators.base import GradientEstimator
from artbp.estimators.online import Sensitivity, StepDerivatives, online
from artbp.estimators.real_parts import either_part
from artbp.estimators.rtrl import influence_gradient, influence_terms, zero_influence
from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import LossFn


class SparseInfluence(NamedTuple):
    """`values` of J, as in `artbp.rtrl`; `pattern` M: where ∂F/∂θ has been nonzero so far."""

    values: Any
    pattern: Any  # bool


def snap1(
    cell: Cell, loss_fn: LossFn, *, update_every: int = 1, normalizer: float = 1.0
) -> GradientEstimator:
    """SnAp-1 approximates RTRL by masking the influence matrix J with the pattern M of ∂F/∂θ.

        J_t = M ⊙ ((∂F_t/∂s_{t−1}) J_{t−1}) + ∂F_t/∂θ
        g_t = ∂ℓ_t/∂θ + J_{t−1}ᵀ ∂ℓ_t/∂s_{t−1}

    M contains the pairs of a parameter and a carry entry that ∂F/∂θ connects within one step. For a
    weight of an RNN, this is the influence on its own unit. Influence through other units is
    dropped, which is a bias. SnAp-1 equals RTRL if each unit depends only on itself (a diagonal
    recurrence), or if every parameter reaches every unit within one step. The real and imaginary
    parts of a complex entry are one unit: a parameter that reaches one part is tracked on both. So
    SnAp-1 also equals RTRL for a complex diagonal recurrence.

    M is found during the stream: a pair belongs to it from the first step at which ∂F/∂θ is not
    zero. This works for any cell, but stores J in full, at the cost of `artbp.rtrl`. It shows the
    bias of the approximation, not its savings; an implementation for one cell needs one or two
    numbers per parameter and row.

    Args:
      cell, loss_fn, update_every, normalizer: as for `artbp.rtrl`.

    Raises:
      ValueError, TypeError: as `artbp.rtrl`.

    Source: Menick et al., "A Practical Sparse Approximation for Real Time Recurrent Learning"
    (arXiv 2006.07232), SnAp-n with n = 1.
    """

    def zero(params: Any, floats: Any) -> SparseInfluence:
        zeros = zero_influence(params, floats)
        return SparseInfluence(zeros, nonzero(zeros))

    def gradient(params: Any, influence: SparseInfluence, cotangent: Any) -> Any:
        return influence_gradient(params, influence.values, cotangent)

    def update(
        influence: SparseInfluence, derivatives: StepDerivatives, t: jax.Array, rng_key: jax.Array
    ) -> SparseInfluence:
        del t, rng_key
        propagated, immediate = influence_terms(influence.values, derivatives)
        touched = either_part(nonzero(immediate))
        pattern = jax.tree.map(jnp.logical_or, influence.pattern, touched)

        def masked_sum(pattern: jax.Array, propagated: jax.Array, immediate: jax.Array) -> Any:
            return jnp.where(pattern, propagated, jnp.zeros_like(propagated)) + immediate

        values = jax.tree.map(masked_sum, pattern, propagated, immediate)
        return SparseInfluence(values, pattern)

    return online(cell, loss_fn, Sensitivity(zero, gradient, update), update_every, normalizer)


def nonzero(tree: Any) -> Any:
    """Where the entries of the leaves are not zero."""
    return jax.tree.map(lambda leaf: leaf != 0, tree)
