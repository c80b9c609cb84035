"""How the gradient is truncated, and the optimiser: SGD with clipping."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.stability.system import cell, global_norm, loss_fn

TRUNCATIONS = ("bptt", "tbptt", "artbp_polynomial", "artbp_geometric")
NAMES = {
    "bptt": "BPTT",
    "tbptt": "TBPTT",
    "artbp_polynomial": "ARTBP, polynomial",
    "artbp_geometric": "ARTBP, geometric",
}


@dataclass(frozen=True)
class Truncation:
    """How sequences of `sequence_length` steps are cut.

    Attributes:
        name: of `TRUNCATIONS`.
        mean_length: of a segment; not used by "bptt", whose segments are the sequences.
        alpha: of the polynomial law.
        sequence_length: steps between resets.
    """

    name: str
    mean_length: int
    alpha: float
    sequence_length: int

    @property
    def steps_per_update(self) -> int:
        """On average."""
        return self.sequence_length if self.name == "bptt" else self.mean_length

    def law(self) -> artbp.truncation.TruncationLaw:
        """Of the lengths. BPTT and TBPTT cut a stream of whole sequences at fixed steps."""
        if self.name == "artbp_polynomial":
            return artbp.truncation.polynomial(self.mean_length, self.alpha)
        if self.name == "artbp_geometric":
            return artbp.truncation.geometric(self.mean_length)
        return artbp.truncation.fixed(self.steps_per_update)

    def gates(self, rng_key: jax.Array, num_steps: int) -> jax.Array:
        """Of one draw, [num_steps]; those of BPTT and TBPTT do not depend on the key."""
        if not self.name.startswith("artbp"):
            inside = jnp.arange(1, num_steps + 1) % self.steps_per_update != 0
            return inside.astype(float)  # of the type that ARTBP's have: compiled for both at once
        return self.law().sample_gates(rng_key, num_steps)

    def estimator(self, num_rows: int) -> artbp.GradientEstimator:
        """Its gradient is that of the mean loss per step and row of an average segment."""
        return _estimator(self, num_rows)


@functools.cache  # the same estimator, so that what is compiled for it is compiled once
def _estimator(truncation: Truncation, num_rows: int) -> artbp.GradientEstimator:
    length = truncation.steps_per_update
    normalizer = float(length * num_rows)
    if truncation.name.startswith("artbp"):
        return artbp.artbp(cell, loss_fn, truncation.law(), normalizer=normalizer)
    return artbp.tbptt(cell, loss_fn, truncation_length=length, normalizer=normalizer)


class Clip(NamedTuple):
    """Bounds on the gradient: on its global norm, and on the modulus of each entry; ∞ for none."""

    norm: Any = np.inf
    value: Any = np.inf


def clip(gradient: Any, bounds: Clip) -> Any:
    """The gradient with its entries clipped, and then scaled to a norm within the bound.

    The bounds may be traced, unlike those of optax.
    """
    gradient = jax.tree.map(lambda leaf: jnp.clip(leaf, -bounds.value, bounds.value), gradient)
    factor = jnp.minimum(1.0, bounds.norm / jnp.maximum(global_norm(gradient), 1e-300))
    return jax.tree.map(lambda leaf: factor * leaf, gradient)


def clipped_sgd(rate: Any, bounds: Clip) -> optax.GradientTransformation:
    """θ ← θ − rate · clip(gradient)."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        del params
        return jax.tree.map(lambda leaf: -rate * leaf, clip(updates, bounds)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
