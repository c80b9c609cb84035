"""The recurrent cell of the ARTBP paper's authors, read from their code.

    m  = E x + W h + d                      (E a table with one row per symbol)
    i, f, o = σ(E_k x + U_k m + b_k),   g = E_g x + U_g m + b_g
    c' = f c + i g,      h' = tanh(c' o),   y = h'

Source: github.com/ctallec/bigart, models/rnnCore.lua, `buildLSTM`. Three things differ from the
usual LSTM: there is m, there is no tanh on g, and the last tanh is on c' o instead of c'. m is
linear in x and h. So the products are combined, once a segment, into an affine map
z = x (E_z + E U) + h (W U) + (b + d U), and a step costs as much as one of the usual LSTM.
Combining them, with its gradient, costs as much as H/B steps: 4 at 256 units and 64 rows, 16 at
1000 units.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from artbp.cells.base import ReferenceCell, input_product, product
from artbp.cells.lstm_recurrence import LSTMCarry, LSTMLocal, LSTMRecurrence, LSTMResiduals
from artbp.unrolls.recurrence import Chunk


def _apply(params: Any, carry: LSTMCarry, x: jax.Array) -> tuple[LSTMCarry, jax.Array]:
    mixed = input_product(params["mixed_input"], x) + params["mixed_bias"]
    mixed += product(carry.hidden, params["mixed_recurrent"])
    z = input_product(params["input"], x) + product(mixed, params["recurrent"]) + params["bias"]
    z_i, z_f, g, z_o = jnp.split(z, 4, axis=-1)
    memory = jax.nn.sigmoid(z_f) * carry.memory + jax.nn.sigmoid(z_i) * g
    hidden = jnp.tanh(memory * jax.nn.sigmoid(z_o))
    return LSTMCarry(memory, hidden), hidden


def _init(
    rng_key: jax.Array, input_size: int, hidden_size: int, *, forget_bias: float = 0.0
) -> dict[str, jax.Array]:
    """Draws weights as the layers of Torch 7 do by default.

    Tables are standard normal, matrices and biases uniform on ± 1/√hidden_size. The bias of the
    forget gate is `forget_bias`.
    """
    keys = jax.random.split(rng_key, 6)

    def uniform(key: jax.Array, *shape: int) -> jax.Array:
        bound = hidden_size**-0.5
        return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

    bias = uniform(keys[0], 4, hidden_size).at[1].set(forget_bias)
    return {
        "mixed_input": jax.random.normal(keys[1], (input_size, hidden_size), jnp.float32),
        "mixed_recurrent": uniform(keys[2], hidden_size, hidden_size),
        "mixed_bias": uniform(keys[3], hidden_size),
        "input": jax.random.normal(keys[4], (input_size, 4 * hidden_size), jnp.float32),
        "recurrent": uniform(keys[5], hidden_size, 4 * hidden_size),
        "bias": bias.reshape(-1),
    }


def _initial_carry(params: Any, batch_size: int) -> LSTMCarry:
    zeros = jnp.zeros((batch_size, params["mixed_bias"].shape[0]), params["recurrent"].dtype)
    return LSTMCarry(zeros, zeros)


def _affine_map(params: Any) -> dict[str, jax.Array]:
    """The products combined: the weights of z = x input + h recurrent + bias."""
    recurrent = params["recurrent"]
    return {
        "input": params["input"] + params["mixed_input"] @ recurrent,
        "recurrent": params["mixed_recurrent"] @ recurrent,
        "bias": params["bias"] + params["mixed_bias"] @ recurrent,
    }


class _Recurrence(LSTMRecurrence):
    """As the LSTM's, with other non-linearities; `g` stands for `candidate`."""

    def __init__(self, params: Any, to_params: Any):
        combined, pull_back = jax.vjp(_affine_map, params)
        super().__init__(combined, lambda gradient: to_params(pull_back(gradient)[0]))

    def step(self, carry: LSTMCarry, u: Any) -> tuple[LSTMCarry, jax.Array, LSTMResiduals]:
        z = self._projected(u) + product(carry.hidden, self._params["recurrent"])
        z_i, z_f, g, z_o = jnp.split(z, 4, axis=-1)
        gates = jax.nn.sigmoid(z_i), jax.nn.sigmoid(z_f), g, jax.nn.sigmoid(z_o)
        i, f, g, o = lax.optimization_barrier(gates)
        memory = lax.optimization_barrier(f * carry.memory + i * g)
        hidden = jnp.tanh(memory * o)
        return LSTMCarry(memory, hidden), hidden, LSTMResiduals(i, f, g, o, carry.memory)

    def linearize(self, chunk: Chunk) -> tuple[jax.Array, LSTMLocal]:
        i, f, g, o, c = chunk.residuals
        memory = f * c + i * g
        hidden = lax.optimization_barrier(jnp.tanh(memory * o))
        slope = 1 - hidden * hidden
        local = LSTMLocal(
            input_gate=g * i * (1 - i),
            forget_gate=c * f * (1 - f),
            candidate=i,
            output_gate=slope * memory * o * (1 - o),
            memory=slope * o,
            decay=f,
            hidden=self._entered(chunk, hidden),
        )
        return hidden, lax.optimization_barrier(local)


authors_lstm = ReferenceCell(_apply, _init, _initial_carry, _Recurrence)
"""The cell of this module, in float32 or float64; x is `[B]` integers or `[B, D]` floats."""
