"""The gated recurrent unit."""

from typing import Any

import jax
import jax.numpy as jnp

from artbp.cells.base import ReferenceCell, init_weights, input_product, product, zero_state
from artbp.cells.gru_recurrence import GRURecurrence


def _apply(params: Any, hidden: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    from_input = input_product(params["input"], x)
    from_input = from_input + params["bias"][None, :].astype(from_input.dtype)
    from_hidden = product(hidden, params["recurrent"])
    reset_x, update_x, candidate_x = jnp.split(from_input, 3, axis=-1)
    reset_h, update_h, candidate_h = jnp.split(from_hidden, 3, axis=-1)
    reset = jax.nn.sigmoid(reset_x + reset_h)
    update = jax.nn.sigmoid(update_x + update_h)
    candidate_h = candidate_h + params["candidate_bias"][None, :].astype(candidate_h.dtype)
    candidate = jnp.tanh(candidate_x + reset * candidate_h)
    new_hidden = (1 - update) * candidate + update * hidden.astype(update.dtype)
    new_hidden = new_hidden.astype(hidden.dtype)
    return new_hidden, new_hidden


def _init(
    rng_key: jax.Array, input_size: int, hidden_size: int, *, dtype: Any = jnp.float32
) -> dict[str, jax.Array]:
    """Glorot-uniform input weights, orthogonal recurrence, zero biases."""
    return {
        **init_weights(rng_key, input_size, hidden_size, 3, dtype),
        "bias": jnp.zeros((3 * hidden_size,), dtype),
        "candidate_bias": jnp.zeros((hidden_size,), dtype),
    }


gru = ReferenceCell(_apply, _init, zero_state, GRURecurrence)
"""r, z = σ(x W + h U + b);  n = tanh(x W_n + b_n + r (h U_n + b'_n));  h' = (1 − z) n + z h.

y = h'. The carry is h, `[B, hidden_size]`. The reset gate acts after the recurrent product, as in
cuDNN. `artbp.cells.gru_recurrence` has the backward pass, written by hand. (Cho et al., 2014.)
"""
