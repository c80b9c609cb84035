"""The LSTM taken apart: its forward and backward pass, written by hand.

    z = x W + h U + b,   i, f, g, o = σ(z_i), σ(z_f), tanh(z_g), σ(z_o)
    c' = f c + i g,      h' = o tanh(c'),   y = h'

Kept of a step are i, f, g, o and c: 5 floats per unit and row, where differentiating a scan keeps
12. Backwards, with δh and δc the cotangents of h' and c',

    δc += E δh           E  = o (1 − tanh² c')
    δz = D (δc, δc, δc, δh)
                         D  = (g i (1 − i),  c f (1 − f),  i (1 − g²),  tanh(c') o (1 − o))
    δc = f δc,  δh = δz Uᵀ

D and E do not depend on the cotangents, so they are computed for many steps at once; what is left
in the loop is one product and six multiplications. The gradients of W, U and b come from all δz of
a chunk, in one product each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.cells.base import input_product, product
from artbp.unrolls.recurrence import Chunk

# Up to this size, XLA on a CPU is faster at four products [B, H] × [H, H] and their sum than at
# one [B, 4 H] × [4 H, H]; above it, slower.
_SMALL = 160


class LSTMCarry(NamedTuple):
    """`memory` c and `hidden` h, both `[B, hidden_size]`."""

    memory: jax.Array
    hidden: jax.Array


class _Kept(NamedTuple):
    input_gate: jax.Array
    forget_gate: jax.Array
    candidate: jax.Array
    output_gate: jax.Array
    memory: jax.Array  # that entered the step


class _Local(NamedTuple):
    input_gate: jax.Array  # ∂c'/∂z_i, and so on
    forget_gate: jax.Array
    candidate: jax.Array
    output_gate: jax.Array  # ∂h'/∂z_o
    memory: jax.Array  # ∂h'/∂c'
    decay: jax.Array  # ∂c'/∂c = f
    hidden: jax.Array  # that entered the step


class LSTMRecurrence:
    """The `Recurrence` of the LSTM; for its methods see there.

    Args:
      params: dict of input `[D, 4 H]`, recurrent `[H, 4 H]`, bias `[4 H]`; more is ignored.
      to_params: takes a gradient like params to one like what the caller differentiates.
    """

    def __init__(self, params: Any, to_params: Callable[[Any], Any]):
        self._params = params
        self._to_params = to_params
        self._wide = _tree.at_least_float32(params["recurrent"].dtype)
        self._blocks = None
        if params["recurrent"].shape[0] <= _SMALL and jax.default_backend() == "cpu":
            # The barrier keeps the slices out of the loops, where XLA would cut them at each step.
            self._blocks = lax.optimization_barrier(jnp.split(params["recurrent"].T, 4))

    def project(self, xs: Any) -> Any:
        """x W for float inputs; symbols stay symbols, since picking rows of W is no product."""
        if jnp.issubdtype(xs.dtype, jnp.integer):
            return xs
        return self._input(xs)

    def step(self, carry: LSTMCarry, u: Any) -> tuple[LSTMCarry, jax.Array, _Kept]:
        from_input = self._input(u) if jnp.issubdtype(u.dtype, jnp.integer) else u
        z = from_input + product(carry.hidden, self._params["recurrent"])
        z_i, z_f, z_g, z_o = jnp.split(z, 4, axis=-1)
        i, f, o = jax.nn.sigmoid(z_i), jax.nn.sigmoid(z_f), jax.nn.sigmoid(z_o)
        # Without barriers, XLA computes these once for every result that they enter.
        i, f, g, o = lax.optimization_barrier((i, f, jnp.tanh(z_g), o))
        memory = lax.optimization_barrier(f * carry.memory.astype(z.dtype) + i * g)
        hidden = (o * jnp.tanh(memory)).astype(carry.hidden.dtype)
        dtype = self._params["recurrent"].dtype
        kept = _Kept(
            i.astype(dtype), f.astype(dtype), g.astype(dtype), o.astype(dtype), carry.memory
        )
        return LSTMCarry(memory.astype(carry.memory.dtype), hidden), hidden, kept

    def kept_like(self, carry: LSTMCarry) -> _Kept:
        gate = carry.hidden.astype(self._params["recurrent"].dtype)
        return _Kept(gate, gate, gate, gate, carry.memory)

    def linearize(self, chunk: Chunk) -> tuple[jax.Array, _Local]:
        i, f, g, o, c = (leaf.astype(self._wide) for leaf in chunk.kept)
        tanh = lax.optimization_barrier(jnp.tanh(f * c + i * g))
        hidden = chunk.entering.hidden
        ys = (o * tanh).astype(hidden.dtype)
        previous = jnp.concatenate([hidden[None], ys[:-1]])
        if chunk.resets is not None:
            initial = chunk.initial_carry.hidden[None]
            previous = jnp.where(_tree.align(chunk.resets, ys), initial, previous)
        local = _Local(
            input_gate=g * i * (1 - i),
            forget_gate=c * f * (1 - f),
            candidate=i * (1 - g * g),
            output_gate=tanh * o * (1 - o),
            memory=o * (1 - tanh * tanh),
            decay=f,
            hidden=previous,
        )
        return ys, lax.optimization_barrier(local)

    def pull_back(
        self, local: _Local, cotangent: LSTMCarry, y_cotangent: jax.Array
    ) -> tuple[jax.Array, LSTMCarry]:
        d_hidden = cotangent.hidden.astype(self._wide) + y_cotangent.astype(self._wide)
        d_memory = cotangent.memory.astype(self._wide) + local.memory * d_hidden
        d_hidden, d_memory = lax.optimization_barrier((d_hidden, d_memory))
        parts = [
            local.input_gate * d_memory,
            local.forget_gate * d_memory,
            local.candidate * d_memory,
            local.output_gate * d_hidden,
        ]
        parts = [part.astype(self._params["recurrent"].dtype) for part in parts]
        parts, delta = lax.optimization_barrier((parts, jnp.concatenate(parts, axis=-1)))
        entering = LSTMCarry(
            memory=(local.decay * d_memory).astype(cotangent.memory.dtype),
            hidden=self._back(parts, delta).astype(cotangent.hidden.dtype),
        )
        return delta, entering

    def zero_sums(self) -> Any:
        names = ("input", "recurrent", "bias")
        return _tree.zero_sums({name: self._params[name] for name in names})

    def accumulate(self, sums: Any, local: _Local, xs: Any, deltas: jax.Array) -> Any:
        hidden = local.hidden.astype(deltas.dtype)
        bias = sums["bias"] + jnp.sum(deltas, axis=(0, 1), dtype=self._wide)
        num_inputs, hidden_size = self._params["input"].shape[0], hidden.shape[-1]
        if jnp.issubdtype(xs.dtype, jnp.integer):
            if num_inputs > hidden_size:  # with one-hot vectors, that product would be the largest
                return {
                    "input": sums["input"].at[xs].add(deltas.astype(self._wide)),
                    "recurrent": sums["recurrent"] + self._summed_outer(hidden, deltas),
                    "bias": bias,
                }
            xs = jax.nn.one_hot(xs, num_inputs, dtype=deltas.dtype)
        # One product for both: a narrow one, such as that of few symbols, costs as much as a wide.
        left = jnp.concatenate([hidden, xs.astype(deltas.dtype)], axis=-1)
        recurrent, from_input = jnp.split(self._summed_outer(left, deltas), [hidden_size])
        return {
            "input": sums["input"] + from_input,
            "recurrent": sums["recurrent"] + recurrent,
            "bias": bias,
        }

    def gradient(self, sums: Any) -> Any:
        def of_leaf(path: Any, leaf: jax.Array) -> jax.Array:
            name = jax.tree_util.keystr(path, simple=True)
            return sums[name].astype(leaf.dtype) if name in sums else jnp.zeros_like(leaf)

        return self._to_params(jax.tree_util.tree_map_with_path(of_leaf, self._params))

    def input_gradient(self, local: _Local, xs: Any, deltas: jax.Array) -> Any:
        if jnp.issubdtype(xs.dtype, jnp.integer):
            return None
        return product(deltas, self._params["input"].T).astype(xs.dtype)

    def _input(self, x: jax.Array) -> jax.Array:
        from_input = input_product(self._params["input"], x)
        bias = self._params["bias"].astype(self._wide)
        return from_input + bias.reshape((1,) * (from_input.ndim - 1) + (-1,))

    def _back(self, parts: list[jax.Array], delta: jax.Array) -> jax.Array:
        """δz Uᵀ, from δz in four parts and in one."""
        if self._blocks is None:
            return product(delta, self._params["recurrent"].T)
        pairs = zip(parts, self._blocks, strict=True)
        first, *rest = [product(part, block) for part, block in pairs]
        return sum(rest, start=first)

    def _summed_outer(self, left: jax.Array, right: jax.Array) -> jax.Array:
        """Σ_t Σ_b left[t, b, :] right[t, b, :]ᵀ, one product, sharded as the weights."""
        if not _tree.is_sharded((left, right, self._params["recurrent"])):
            # Steps and rows as one axis: XLA would transpose both operands.
            left, right = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
            return jnp.matmul(left.T, right, preferred_element_type=self._wide)
        sharding = jax.typeof(self._params["recurrent"]).sharding
        contracted = (((0, 1), (0, 1)), ((), ()))
        return lax.dot_general(
            left, right, contracted, preferred_element_type=self._wide, out_sharding=sharding
        )
