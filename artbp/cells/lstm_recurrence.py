"""The LSTM as a `Recurrence`: its forward and backward pass, written by hand.

    z = x W + h U + b,   i, f, g, o = σ(z_i), σ(z_f), tanh(z_g), σ(z_o)
    c' = f c + i g,      h' = o tanh(c'),   y = h'

The residuals of a step are i, f, g, o and c: 5 floats per unit and row, where differentiating a
scan keeps 12. In the backward pass, with δh and δc the cotangents of h' and c',

    δc += E δh           E  = o (1 − tanh² c')
    δz = D (δc, δc, δc, δh)
                         D  = (g i (1 − i),  c f (1 − f),  i (1 − g²),  tanh(c') o (1 − o))
    δc = f δc,  δh = δz Uᵀ

D and E do not depend on the cotangents, so they are computed for many steps at once. The loop over
steps is left with one product and six multiplications. The gradients of W, U and b are one product
each, of all δz of a chunk.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp.cells.affine_recurrence import AffineRecurrence
from artbp.cells.base import product
from artbp.unrolls.recurrence import Chunk


class LSTMCarry(NamedTuple):
    """`memory` c and `hidden` h, both `[B, hidden_size]`."""

    memory: jax.Array
    hidden: jax.Array


class LSTMResiduals(NamedTuple):
    """What the forward pass of a step stores."""

    input_gate: jax.Array
    forget_gate: jax.Array
    candidate: jax.Array
    output_gate: jax.Array
    memory: jax.Array  # that entered the step


class LSTMLocal(NamedTuple):
    """The local derivatives of a step."""

    input_gate: jax.Array  # ∂c'/∂z_i, and so on
    forget_gate: jax.Array
    candidate: jax.Array
    output_gate: jax.Array  # ∂h'/∂z_o
    memory: jax.Array  # ∂h'/∂c'
    decay: jax.Array  # ∂c'/∂c = f
    hidden: jax.Array  # that entered the step


class LSTMRecurrence(AffineRecurrence):
    """The `Recurrence` of the LSTM; for its methods see there."""

    def step(self, carry: LSTMCarry, u: Any) -> tuple[LSTMCarry, jax.Array, LSTMResiduals]:
        z = self._projected(u) + product(carry.hidden, self._params["recurrent"])
        z_i, z_f, z_g, z_o = jnp.split(z, 4, axis=-1)
        i, f, o = jax.nn.sigmoid(z_i), jax.nn.sigmoid(z_f), jax.nn.sigmoid(z_o)
        # Without barriers, XLA computes these once for every result that they enter.
        i, f, g, o = lax.optimization_barrier((i, f, jnp.tanh(z_g), o))
        memory = lax.optimization_barrier(f * carry.memory.astype(z.dtype) + i * g)
        hidden = (o * jnp.tanh(memory)).astype(carry.hidden.dtype)
        i, f, g, o = (gate.astype(self._stored) for gate in (i, f, g, o))
        residuals = LSTMResiduals(i, f, g, o, carry.memory)
        return LSTMCarry(memory.astype(carry.memory.dtype), hidden), hidden, residuals

    def residuals_like(self, carry: LSTMCarry) -> LSTMResiduals:
        gate = carry.hidden.astype(self._stored)
        return LSTMResiduals(gate, gate, gate, gate, carry.memory)

    def linearize(self, chunk: Chunk) -> tuple[jax.Array, LSTMLocal]:
        i, f, g, o, c = (leaf.astype(self._wide) for leaf in chunk.residuals)
        tanh = lax.optimization_barrier(jnp.tanh(f * c + i * g))
        ys = (o * tanh).astype(chunk.entering.hidden.dtype)
        local = LSTMLocal(
            input_gate=g * i * (1 - i),
            forget_gate=c * f * (1 - f),
            candidate=i * (1 - g * g),
            output_gate=tanh * o * (1 - o),
            memory=o * (1 - tanh * tanh),
            decay=f,
            hidden=self._entered(chunk, ys),
        )
        return ys, lax.optimization_barrier(local)

    def pull_back(
        self, local: LSTMLocal, cotangent: LSTMCarry, y_cotangent: jax.Array
    ) -> tuple[jax.Array, LSTMCarry]:
        d_hidden = cotangent.hidden.astype(self._wide) + y_cotangent.astype(self._wide)
        d_memory = cotangent.memory.astype(self._wide) + local.memory * d_hidden
        d_hidden, d_memory = lax.optimization_barrier((d_hidden, d_memory))
        of_memory = (local.input_gate, local.forget_gate, local.candidate)
        parts = [*(gate * d_memory for gate in of_memory), local.output_gate * d_hidden]
        parts = [part.astype(self._stored) for part in parts]
        parts, delta = lax.optimization_barrier((parts, jnp.concatenate(parts, axis=-1)))
        entering = LSTMCarry(
            memory=(local.decay * d_memory).astype(cotangent.memory.dtype),
            hidden=self._back(parts, delta).astype(cotangent.hidden.dtype),
        )
        return delta, entering

    def _hidden(self, carry: LSTMCarry) -> jax.Array:
        return carry.hidden
