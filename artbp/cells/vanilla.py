"""The linear cell and the vanilla (tanh) recurrent cell."""

from typing import Any

import jax
import jax.numpy as jnp

from artbp.cells.base import (
    ReferenceCell,
    glorot_blocks,
    input_product,
    orthogonal_blocks,
    product,
    zero_state,
)
from artbp.cells.vanilla_recurrence import LinearRecurrence, RNNRecurrence


def _pre_activation(params: Any, hidden: jax.Array, x: jax.Array) -> jax.Array:
    z = input_product(params["input"], x) + product(hidden, params["recurrent"])
    return z + params["bias"][None, :].astype(z.dtype)


def _apply_linear(params: Any, hidden: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    hidden = _pre_activation(params, hidden, x).astype(hidden.dtype)
    return hidden, hidden


def _apply_rnn(params: Any, hidden: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    hidden = jnp.tanh(_pre_activation(params, hidden, x)).astype(hidden.dtype)
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
    input_key, recurrent_key = jax.random.split(rng_key)
    recurrent = orthogonal_blocks(recurrent_key, hidden_size, 1, dtype)
    return {
        "input": glorot_blocks(input_key, input_size, hidden_size, 1, dtype),
        "recurrent": jnp.asarray(spectral_radius, dtype) * recurrent,
        "bias": jnp.zeros((hidden_size,), dtype),
    }


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
