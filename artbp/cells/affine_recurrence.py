"""The affine map z = x W + h U + b, which the recurrences of all our cells share.

Given δz of all steps of a chunk, and h the hidden state that entered each of them,

    δx = δz Wᵀ,   δh = δz Uᵀ,   δW = Σ xᵀ δz,   δU = Σ hᵀ δz,   δb = Σ δz

x W + b is computed for many steps before the forward loop, and δx, δW, δU and δb for many steps
after the backward loop. Only h U and δz Uᵀ remain inside the loops.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.cells.base import as_symbols, input_product, product, transpose
from artbp.unrolls.recurrence import Chunk

# Up to this size, XLA on a CPU is faster at four products [B, H] × [H, H] and their sum than at
# one [B, 4 H] × [4 H, H]; above it, slower. (Measured for the LSTM; the GRU, with three, follows.)
_SMALL = 160
# From this size on, it is faster at (U δzᵀ)ᵀ than at δz times a copy of Uᵀ, in both dtypes.
# (Measured with 64 rows on a processor with AVX-512; below this size, it is level.)
_LARGE = 512


class AffineRecurrence:
    """The part of a `Recurrence` that does not depend on how a cell uses z.

    A cell adds `step`, `residuals_like`, `linearize` and `pull_back`. Its local derivatives have a
    field `hidden`, the h that entered each step (`_entered`).

    Args:
      params: dict of input W `[D, K H]`, recurrent U `[H, K H]`, bias b `[K H]`; entries that are
        not in `_names` are ignored.
      to_params: turns a gradient like params into one like the params that the caller handed over.
    """

    _names: tuple[str, ...] = ("input", "recurrent", "bias")

    def __init__(self, params: Any, to_params: Callable[[Any], Any]):
        self._params = params
        self._to_params = to_params
        self._dtype = params["recurrent"].dtype
        self._wide = _tree.at_least_float32(self._dtype)
        is_cpu = jax.default_backend() == "cpu"
        # XLA on a CPU has no bfloat16 loop buffers: it would convert a whole one at every step.
        self._stored = self._wide if is_cpu else self._dtype
        self._blocks = None
        hidden_size, columns = params["recurrent"].shape
        num_blocks = columns // hidden_size if hidden_size <= _SMALL else 1
        self._is_large = is_cpu and hidden_size >= _LARGE
        if is_cpu and not self._is_large:
            # The barrier keeps slices and copies out of the loops, where XLA would make them at
            # each step.
            transposed = transpose(params["recurrent"])
            self._blocks = lax.optimization_barrier(jnp.split(transposed, num_blocks))

    def project(self, xs: Any) -> Any:
        """x W + b for float inputs; symbols stay symbols, as picking rows of W is no product."""
        if jnp.issubdtype(xs.dtype, jnp.integer):
            return xs
        return self._input(xs)

    def zero_sums(self) -> Any:
        return _tree.zero_sums({name: self._params[name] for name in self._names})

    def accumulate(self, sums: Any, local: Any, xs: Any, deltas: Any) -> Any:
        hidden = local.hidden
        of_hidden, of_input = self._sides(local, deltas)
        num_inputs, hidden_size = self._params["input"].shape[0], hidden.shape[-1]
        is_symbols = jnp.issubdtype(xs.dtype, jnp.integer)
        if is_symbols and num_inputs > hidden_size:
            # With one-hot vectors, that product would be the largest.
            rows = sums["input"].at[as_symbols(xs, num_inputs)]  # adds nothing beyond the last
            from_input = rows.add(of_input.astype(self._wide))
            recurrent = sums["recurrent"] + self._summed_outer(hidden, of_hidden)
        else:
            if is_symbols:  # int32: with 8 bits, `one_hot` would count its columns modulo 256
                xs = jax.nn.one_hot(xs.astype(jnp.int32), num_inputs, dtype=self._dtype)
            hidden, xs = hidden.astype(self._dtype), xs.astype(self._dtype)
            if of_input is of_hidden:
                # One product for both: a narrow one, as of few symbols, costs as much as a wide.
                both = self._summed_outer(jnp.concatenate([hidden, xs], axis=-1), of_hidden)
                of_recurrent, of_weights = jnp.split(both, [hidden_size])
            else:
                of_recurrent = self._summed_outer(hidden, of_hidden)
                of_weights = self._summed_outer(xs, of_input)
            from_input = sums["input"] + of_weights
            recurrent = sums["recurrent"] + of_recurrent
        bias = sums["bias"] + self._summed(of_input)
        return {"input": from_input, "recurrent": recurrent, "bias": bias}

    def gradient(self, sums: Any) -> Any:
        def of_leaf(path: Any, leaf: jax.Array) -> jax.Array:
            name = jax.tree_util.keystr(path, simple=True)
            return sums[name].astype(leaf.dtype) if name in sums else jnp.zeros_like(leaf)

        return self._to_params(jax.tree_util.tree_map_with_path(of_leaf, self._params))

    def input_gradient(self, local: Any, xs: Any, deltas: Any) -> Any:
        if not _tree.is_inexact(xs):
            return None
        _, of_input = self._sides(local, deltas)
        return product(of_input, transpose(self._params["input"])).astype(xs.dtype)

    def _hidden(self, carry: Any) -> jax.Array:
        """h, of a carry."""
        return carry

    def _sides(self, local: Any, deltas: Any) -> tuple[jax.Array, jax.Array]:
        """(δ of h U, δ of x W + b), `[C, B, K H]`; δz twice."""
        return deltas, deltas

    def _projected(self, u: jax.Array) -> jax.Array:
        """x W + b, from the output of `project`."""
        return self._input(u) if jnp.issubdtype(u.dtype, jnp.integer) else u

    def _entered(self, chunk: Chunk, ys: jax.Array) -> jax.Array:
        """The h that entered each step, after its reset, from y = h' of the steps before it."""
        previous = jnp.concatenate([self._hidden(chunk.entering)[None], ys[:-1]])
        if chunk.resets is None:
            return previous
        initial = self._hidden(chunk.initial_carry)
        if initial is None:  # resets leave h as it is
            return previous
        return jnp.where(_tree.align(chunk.resets, ys), initial[None], previous)

    def _back(self, parts: list[jax.Array], delta: jax.Array) -> jax.Array:
        """δz Uᵀ, from δz in K parts and in one."""
        recurrent = self._params["recurrent"]
        if self._is_large:
            # The barrier keeps XLA from turning this into δz Uᵀ, for which it reads U in columns.
            # (Of a product with an explicit δzᵀ, it would convert bfloat16 operands to float32.)
            operands = recurrent, delta.astype(self._dtype)
            dimensions = (((1,), (1,)), ((), ()))
            back = lax.dot_general(*operands, dimensions, preferred_element_type=self._wide)
            return lax.optimization_barrier(back).T
        if self._blocks is None:
            return product(delta, recurrent.T)
        first, *rest = map(product, parts if len(self._blocks) > 1 else [delta], self._blocks)
        return sum(rest, start=first)

    def _summed(self, deltas: jax.Array) -> jax.Array:
        """Σ_t Σ_b deltas[t, b, :]."""
        return jnp.sum(deltas, axis=tuple(range(deltas.ndim - 1)), dtype=self._wide)

    def _summed_outer(self, left: jax.Array, right: jax.Array) -> jax.Array:
        """Σ_t Σ_b left[t, b, :] right[t, b, :]ᵀ, one product, sharded as the weights."""
        left, right = left.astype(self._dtype), right.astype(self._dtype)
        if not _tree.is_sharded((left, right, self._params["recurrent"])):
            # Steps and rows as one axis: XLA would transpose both operands.
            left, right = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
            return jnp.matmul(transpose(left), right, preferred_element_type=self._wide)
        sharding = jax.typeof(self._params["recurrent"]).sharding
        axes = tuple(range(left.ndim - 1))
        options = {"preferred_element_type": self._wide, "out_sharding": sharding}
        return lax.dot_general(left, right, ((axes, axes), ((), ())), **options)

    def _input(self, x: jax.Array) -> jax.Array:
        from_input = input_product(self._params["input"], x)
        bias = self._params["bias"].astype(self._wide)
        return from_input + bias.reshape((1,) * (from_input.ndim - 1) + (-1,))
