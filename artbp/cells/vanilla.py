"""The linear cell and the vanilla (tanh) recurrent cell."""

from typing import Any

import jax
import jax.numpy as jnp

from artbp.cells.base import ReferenceCell, affine, init_weights, zero_state
from artbp.cells.vanilla_recurrence import LinearRecurrence, RNNRecurrence


def _apply_linear(params: Any, hidden: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    hidden = affine(params, hidden, x).astype(hidden.dtype)
    return hidden, hidden


def _apply_rnn(params: Any, hidden: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    hidden = jnp.tanh(affine(params, hidden, x)).astype(hidden.dtype)
    return hidden, hidden


def _init(
    rng_key: jax.Array,
    input_size: int,
    hidden_size: int,
    *,
    spectral_radius: float = 1.0,
    dtype: Any = jnp.float32,
) -> dict[str, jax.Array]:
    """Glorot-uniform input weights, zero bias, `spectral_radius` times orthogonal recurrence."""
    weights = init_weights(rng_key, input_size, hidden_size, 1, dtype)
    weights["recurrent"] = jnp.asarray(spectral_radius, dtype) * weights["recurrent"]
    return {**weights, "bias": jnp.zeros((hidden_size,), dtype)}


linear = ReferenceCell(_apply_linear, _init, zero_state, LinearRecurrence)
"""h' = x W + h U + b, y = h'.

The carry is h, `[B, hidden_size]`. The backward pass is written by hand: see
`artbp.cells.vanilla_recurrence`.
"""

rnn = ReferenceCell(_apply_rnn, _init, zero_state, RNNRecurrence)
"""h' = tanh(x W + h U + b), y = h'.

The carry is h, `[B, hidden_size]`. The backward pass is written by hand: see
`artbp.cells.vanilla_recurrence`. (Elman, 1990.)
"""
