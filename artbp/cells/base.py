"""The class of the reference cells, and the initialisation of their weights."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from artbp import _tree
from artbp.unrolls.closure import hoist
from artbp.unrolls.recurrence import Recurrence


@dataclasses.dataclass(frozen=True)
class ReferenceCell:
    """A cell that can also make its parameters and its first carry.

    No function of artbp requires this class: any function `cell(params, carry, x) -> (carry, y)` is
    a cell. The segment kernels and `fused_unroll` look for a method `recurrence`: if the cell has
    one, they run the backward pass written for it.

    Products are taken in the dtype of the weights and summed in float32 or wider; the rest is
    computed in float32 or wider; the carry keeps its dtype.

    Attributes:
      apply: `apply(params, carry, x) -> (carry, y)`; x is `[B, input_size]` floats, or `[B]`
        integers in [0, input_size), which pick rows of the input weights as one-hot vectors
        would (other integers pick none, such as -1 for no symbol); y is `[B, hidden_size]`, the
        hidden state after the step, unless the cell says otherwise (`lru`: `[B, output_size]`,
        `elementwise_lstm`: its gated state, `sab`: `[B, 2 hidden_size]`).
      init: `init(rng_key, input_size, hidden_size, ...) -> params`.
      initial_carry: `initial_carry(params, batch_size) -> carry`, zeros.
      make_recurrence: `make_recurrence(params, to_params) -> Recurrence`, the cell's hand-written
        recurrence; `to_params` turns a gradient like params into one like the caller's params.
        None: the kernels derive one by automatic differentiation.
      select: see `with_params`.
    """

    apply: Callable[[Any, Any, Any], tuple[Any, Any]]
    init: Callable[..., Any]
    initial_carry: Callable[[Any, int], Any]
    make_recurrence: Callable[[Any, Callable[[Any], Any]], Recurrence] | None = None
    select: Callable[[Any], Any] | None = None

    def __call__(self, params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        return self.apply(self._own(params), carry, x)

    def with_params(self, select: Callable[[Any], Any]) -> Self:
        """The same cell, taking its parameters out of a larger tree.

            cell.with_params(select)(params, carry, x) == cell(select(params), carry, x)

        The larger tree holds the readout's parameters, say, and `select = lambda p: p["cell"]`.
        `select` may be any differentiable function, such as a cast to bfloat16; unlike a function
        written around the cell, it keeps the hand-written backward pass. `init` and
        `initial_carry` stay those of the bare cell.
        """
        if self.select is not None:
            inner = self.select
            return dataclasses.replace(self, select=lambda params: inner(select(params)))
        return dataclasses.replace(self, select=select)

    def recurrence(self, params: Any) -> Recurrence | None:
        """The hand-written recurrence at these parameters; None if there is none for them."""
        if self.make_recurrence is None:
            return None
        own, to_params = jax.vjp(self._own, params)
        if any(leaf.dtype == jnp.float16 for leaf in jax.tree.leaves(own)):
            return None  # it rounds sums over steps, which can be larger than float16 holds
        return self.make_recurrence(own, lambda gradient: to_params(gradient)[0])

    def hoist(self, params: Any) -> tuple[Callable[[list[Any]], "ReferenceCell"], list[Any]]:
        """(a function from the arrays that `select` closes over to the cell, these arrays)."""
        if self.select is None:
            return lambda _: self, []
        pure, constants = hoist(self.select, params)
        return lambda c: dataclasses.replace(self, select=functools.partial(pure, c)), constants

    def _own(self, params: Any) -> Any:
        return params if self.select is None else self.select(params)


def product(x: jax.Array, weights: jax.Array) -> jax.Array:
    """x @ weights in the dtype of the weights, summed in float32 or wider and returned as that."""
    wide = _tree.at_least_float32(weights.dtype)
    return jnp.matmul(x.astype(weights.dtype), weights, preferred_element_type=wide)


def input_product(weights: jax.Array, x: jax.Array) -> jax.Array:
    """x @ weights for float x `[..., D]`; weights[x] for integer x `[...]`; float32 or wider.

    A symbol outside [0, D) has a row of zeros, as it has in `jax.nn.one_hot`.
    """
    if jnp.issubdtype(x.dtype, jnp.integer):
        # A row of zeros for them is faster on a CPU than a select behind each read.
        rows = jnp.concatenate([weights, jnp.zeros_like(weights[:1])])
        picked = rows.at[as_symbols(x, weights.shape[0])].get(mode="promise_in_bounds")
        return picked.astype(_tree.at_least_float32(weights.dtype))
    return product(x, weights)


def as_symbols(x: jax.Array, count: int) -> jax.Array:
    """int32 symbols in [0, count], where `count` stands for every integer outside [0, count)."""
    x = x.astype(jnp.int32)
    return jnp.where((x >= 0) & (x < count), x, count)


def transpose(matrix: jax.Array) -> jax.Array:
    """Returns matrix.T as an operand of a product.

    On a CPU it is a copy, row by row. With an operand of another layout, a float32 product takes up
    to twice as long there, and bfloat16 operands are converted to float32 first.
    """
    if jax.default_backend() != "cpu":
        return matrix.T
    if matrix.dtype == _tree.at_least_float32(matrix.dtype):
        # The barrier is enough for a copy, and `jax.export` refuses a layout constraint.
        return lax.optimization_barrier(matrix.T)
    return with_layout_constraint(matrix.T, Layout(major_to_minor=(0, 1)))


def affine(params: Any, hidden: jax.Array, x: jax.Array) -> jax.Array:
    """x W + h U + b, float32 or wider."""
    z = input_product(params["input"], x) + product(hidden, params["recurrent"])
    return z + params["bias"][None, :].astype(z.dtype)


def init_weights(
    rng_key: jax.Array, input_size: int, hidden_size: int, blocks: int, dtype: Any
) -> dict[str, jax.Array]:
    """Input weights, Glorot-uniform, and recurrent ones, orthogonal, each in blocks by column."""

    def concatenated(key: jax.Array, initializer: Any, rows: int, dtype: Any) -> jax.Array:
        keys = jax.random.split(key, blocks)
        return jnp.concatenate([initializer(k, (rows, hidden_size), dtype) for k in keys], axis=1)

    glorot, orthogonal = jax.nn.initializers.glorot_uniform(), jax.nn.initializers.orthogonal()
    wide = _tree.at_least_float32(dtype)  # the QR decomposition exists for no narrower dtype
    input_key, recurrent_key = jax.random.split(rng_key)
    recurrent = concatenated(recurrent_key, orthogonal, hidden_size, wide).astype(dtype)
    return {"input": concatenated(input_key, glorot, input_size, dtype), "recurrent": recurrent}


def zero_state(params: Any, batch_size: int) -> jax.Array:
    """Zeros `[batch_size, hidden_size]` in the dtype of the recurrent weights."""
    recurrent = params["recurrent"]
    return jnp.zeros((batch_size, recurrent.shape[0]), recurrent.dtype)
