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

from artbp.cells.base import ReferenceCell, input_product, product, transpose
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


@jax.custom_vjp
def _combined(left: jax.Array, right: jax.Array) -> jax.Array:
    """left @ right, rounded to the dtype of right; the backward pass is fast in bfloat16, too."""
    return product(left, right).astype(right.dtype)


def _pull_combined_back(operands: Any, delta: jax.Array) -> tuple[jax.Array, jax.Array]:
    left, right = operands
    of_left, of_right = product(delta, transpose(right)), product(transpose(left), delta)
    return of_left.astype(left.dtype), of_right.astype(right.dtype)


_combined.defvjp(lambda *operands: (_combined(*operands), operands), _pull_combined_back)


def _affine_map(params: Any) -> dict[str, jax.Array]:
    """The products combined: the weights of z = x input + h recurrent + bias."""
    recurrent = params["recurrent"]
    return {
        "input": params["input"] + _combined(params["mixed_input"], recurrent),
        "recurrent": _combined(params["mixed_recurrent"], recurrent),
        "bias": params["bias"] + product(params["mixed_bias"], recurrent),
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
        gates = i, f, g, o = lax.optimization_barrier(gates)
        memory = lax.optimization_barrier(f * carry.memory + i * g)
        hidden = jnp.tanh(memory * o).astype(carry.hidden.dtype)
        i, f, g, o = (gate.astype(self._stored) for gate in gates)
        residuals = LSTMResiduals(i, f, g, o, carry.memory)
        return LSTMCarry(memory.astype(carry.memory.dtype), hidden), hidden, residuals

    def linearize(self, chunk: Chunk) -> tuple[jax.Array, LSTMLocal]:
        i, f, g, o, c = (leaf.astype(self._wide) for leaf in chunk.residuals)
        memory = f * c + i * g
        hidden = lax.optimization_barrier(jnp.tanh(memory * o))
        ys, slope = hidden.astype(chunk.entering.hidden.dtype), 1 - hidden * hidden
        local = LSTMLocal(
            input_gate=g * i * (1 - i),
            forget_gate=c * f * (1 - f),
            candidate=i,
            output_gate=slope * memory * o * (1 - o),
            memory=slope * o,
            decay=f,
            hidden=self._entered(chunk, ys),
        )
        return ys, lax.optimization_barrier(local)


authors_lstm = ReferenceCell(_apply, _init, _initial_carry, _Recurrence)
"""The cell of this module; x is `[B]` integers or `[B, D]` floats.

The carry is float32 or wider; weights may be cast to bfloat16 by `with_params`.
"""
