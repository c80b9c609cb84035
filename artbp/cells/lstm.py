"""The LSTM cell."""

from typing import Any

import jax
import jax.numpy as jnp

from artbp.cells.base import ReferenceCell, affine, init_weights, zero_state
from artbp.cells.lstm_recurrence import LSTMCarry, LSTMRecurrence


def _apply(params: Any, carry: LSTMCarry, x: jax.Array) -> tuple[LSTMCarry, jax.Array]:
    gates = affine(params, carry.hidden, x)
    input_gate, forget_gate, candidate, output_gate = jnp.split(gates, 4, axis=-1)
    kept = jax.nn.sigmoid(forget_gate) * carry.memory.astype(gates.dtype)
    memory = kept + jax.nn.sigmoid(input_gate) * jnp.tanh(candidate)
    hidden = jax.nn.sigmoid(output_gate) * jnp.tanh(memory)
    hidden = hidden.astype(carry.hidden.dtype)
    return LSTMCarry(memory.astype(carry.memory.dtype), hidden), hidden


def _init(
    rng_key: jax.Array,
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: float = 1.0,
    dtype: Any = jnp.float32,
) -> dict[str, jax.Array]:
    """Glorot-uniform input weights, orthogonal recurrence, zero bias but for the forget gate."""
    bias = jnp.zeros((4, hidden_size), dtype).at[1].set(forget_bias)
    weights = init_weights(rng_key, input_size, hidden_size, 4, dtype)
    return {**weights, "bias": bias.reshape(-1)}


def _initial_carry(params: Any, batch_size: int) -> LSTMCarry:
    return LSTMCarry(zero_state(params, batch_size), zero_state(params, batch_size))


lstm = ReferenceCell(_apply, _init, _initial_carry, LSTMRecurrence)
"""i, f, g, o = split(x W + h U + b);  c' = σ(f) c + σ(i) tanh(g);  h' = σ(o) tanh(c');  y = h'.

The carry is `LSTMCarry(memory=c, hidden=h)`. Its backward pass is written by hand: see
`artbp.cells.lstm_recurrence`. `init` takes `forget_bias` (1 by default), added to the bias of the
forget gate. (Hochreiter & Schmidhuber, 1997; Gers et al., 2000.)
"""
