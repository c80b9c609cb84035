"""What our own cells have on top of being functions, and how their weights start."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from artbp import _tree


@dataclasses.dataclass(frozen=True)
class ReferenceCell:
    """A cell that can also make its parameters and its first carry.

    Calling it is calling the cell: `cell(params, carry, x) -> (carry, y)`. Nothing in artbp asks
    for this class; any function of that signature is a cell.

    Attributes:
      apply: `apply(params, carry, x) -> (carry, y)`; x is `[B, input_size]` floats, or `[B]`
        integers in [0, input_size), which pick rows of the input weights as one-hot vectors
        would; y is `[B, hidden_size]`, the hidden state after the step.
      init: `init(rng_key, input_size, hidden_size, ...) -> params`.
      initial_carry: `initial_carry(params, batch_size) -> carry`, zeros.
    """

    apply: Callable[[Any, Any, Any], tuple[Any, Any]]
    init: Callable[..., Any]
    initial_carry: Callable[[Any, int], Any]

    def __call__(self, params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        return self.apply(params, carry, x)


def input_product(weights: jax.Array, x: jax.Array) -> jax.Array:
    """x @ weights for float x `[B, D]`; weights[x] for integer x `[B]`. Returns `[B, ...]`."""
    if jnp.issubdtype(x.dtype, jnp.integer):
        return weights[x]
    return x @ weights


def glorot_blocks(
    rng_key: jax.Array, input_size: int, hidden_size: int, blocks: int, dtype: Any
) -> jax.Array:
    """Input weights `[input_size, blocks · hidden_size]`, Glorot-uniform for each block."""
    initializer = jax.nn.initializers.glorot_uniform()
    keys = jax.random.split(rng_key, blocks)
    return jnp.concatenate([initializer(k, (input_size, hidden_size), dtype) for k in keys], axis=1)


def orthogonal_blocks(rng_key: jax.Array, hidden_size: int, blocks: int, dtype: Any) -> jax.Array:
    """Recurrent weights `[hidden_size, blocks · hidden_size]`, orthogonal for each block."""
    initializer = jax.nn.initializers.orthogonal()
    wide = _tree.at_least_float32(dtype)  # the QR decomposition exists for no narrower dtype
    shape = (hidden_size, hidden_size)
    matrices = [initializer(key, shape, wide) for key in jax.random.split(rng_key, blocks)]
    return jnp.concatenate(matrices, axis=1).astype(dtype)


def zero_state(params: Any, batch_size: int) -> jax.Array:
    """Zeros `[batch_size, hidden_size]` in the dtype of the recurrent weights."""
    recurrent = params["recurrent"]
    return jnp.zeros((batch_size, recurrent.shape[0]), recurrent.dtype)
