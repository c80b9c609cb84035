"""The element-wise LSTM."""

from typing import Any

import jax
import jax.numpy as jnp

from artbp.cells.base import input_product, product
from artbp.cells.diagonal import diagonal_cell


def _step(units: Any, carry: jax.Array, z: Any) -> jax.Array:
    forget = jax.nn.sigmoid(z[0] + units["forget"] * carry)
    candidate = jnp.tanh(z[1] + units["candidate"] * carry)
    return forget * carry + (1 - forget) * candidate


def _output(params: Any, carry: jax.Array, x: jax.Array) -> jax.Array:
    weights = params["output"]
    z = input_product(weights["input"], x) + product(carry, weights["recurrent"])
    z = z + weights["bias"].astype(z.dtype)[None]
    return (jax.nn.sigmoid(z) * carry.astype(z.dtype)).astype(carry.dtype)


def _init(
    rng_key: jax.Array, input_size: int, hidden_size: int, *, dtype: Any = jnp.float32
) -> dict[str, Any]:
    """Glorot-uniform matrices, zero biases; the weights of the units uniform on ± 1."""
    keys = jax.random.split(rng_key, 5)
    glorot = jax.nn.initializers.glorot_uniform()
    blocks = [glorot(key, (input_size, hidden_size), dtype) for key in keys[:2]]
    units = jax.random.uniform(keys[2], (2, hidden_size), dtype, -1.0, 1.0)
    return {
        "input": jnp.concatenate(blocks, axis=1),
        "bias": jnp.zeros((2 * hidden_size,), dtype),
        "units": {"forget": units[0], "candidate": units[1]},
        "output": {
            "input": glorot(keys[3], (input_size, hidden_size), dtype),
            "recurrent": glorot(keys[4], (hidden_size, hidden_size), dtype),
            "bias": jnp.zeros((hidden_size,), dtype),
        },
    }


def _initial_carry(params: Any, batch_size: int) -> jax.Array:
    forget = params["units"]["forget"]
    return jnp.zeros((batch_size, forget.shape[0]), forget.dtype)


elementwise_lstm = diagonal_cell(_step, _output, _init, _initial_carry)
"""A gated memory without connections between units::

    f = σ(x W_f + b_f + w_f c),   g = tanh(x W_g + b_g + w_g c)
    c' = f c + (1 − f) g
    y = σ(x W_o + c' U_o + b_o) c'

w_f and w_g are vectors, so only the output mixes the units. The carry is c.

Source: Irie, Gopalakrishnan & Schmidhuber, "Exploring the Promise and Limits of Real-Time Recurrent
Learning" (arXiv 2305.19044); "eLSTM" there.
"""
