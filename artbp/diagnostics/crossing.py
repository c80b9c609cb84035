"""What crosses a step on the way back, and which earlier uses of the params it reaches.

With s_t = F(s_{t−1}, x_t; θ) the carry after step t of a window of T steps, for u = 1, …, T − 1

    b_u     = ∂(ℓ_{u+1} + … + ℓ_T)/∂s_u                the cotangent that crosses from step u+1 to u
    G_{u,m} = (∂F_{u−m}/∂θ)ᵀ (∂s_u/∂s_{u−m})ᵀ b_u       what it adds through the params of step u−m

so Σ_m G_{u,m} is what a boundary behind step u cuts off. Here are the b of all steps, the G of one
step, and their products with a random direction, which need no memory of the size of the params.
In code, steps count from 0: `cotangents[u]` belongs to the carry that enters step u, which is s_u.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import flatten_util, lax

from artbp import _tree
from artbp.estimators.stepwise import Steps
from artbp.stream import Stream
from artbp.unrolls.checks import Cell, check_cell, check_params, check_resets
from artbp.unrolls.readout import LossFn


class Window(NamedTuple):
    """A stream with what its steps need: the arrays that the functions below take.

    Attributes:
      params, initial_carry: as JAX arrays.
      stream: the window.
      carries: those that enter the steps, `[T, ...]`, before a reset replaces them.
      cotangents: b, like the differentiable leaves of `carries`; entry 0 is that of the first
        carry, which no gate acts on.
    """

    params: Any
    initial_carry: Any
    stream: Stream
    carries: Any
    cotangents: Any


def make_window(
    cell: Cell,
    loss_fn: LossFn,
    params: Any,
    carry: Any,
    stream: Stream,
    initial_carry: Any = None,
) -> Window:
    """One forward and one backward pass over the stream. Memory: 2·T carries.

    Args:
      initial_carry: after a reset. Default: `carry`.

    Raises:
      TypeError, ValueError: as `estimate` of `artbp.artbp`.
    """
    check_params(params)
    params, carry = _tree.as_arrays((params, carry))
    stream.check_lengths()
    check_resets(carry, stream.resets)
    check_cell(cell, params, carry, jax.eval_shape(lambda: _tree.index(stream.xs, 0)))
    initial_carry = carry if initial_carry is None else _tree.as_arrays(initial_carry)
    carries, cotangents = _both_ways(cell, loss_fn, params, carry, initial_carry, stream)
    return Window(params, initial_carry, stream, carries, cotangents)


def count_rows(cell: Cell, loss_fn: LossFn, window: Window) -> int | None:
    """B where `loss_fn` gives one loss per row and every float leaf of the carry is `[B, ...]`."""

    def losses() -> jax.Array:
        x, target = _tree.index((window.stream.xs, window.stream.targets), 0)
        _, y = cell(window.params, window.initial_carry, x)
        return loss_fn(window.params, y, target)

    shape = jax.eval_shape(losses).shape
    leaves = jax.tree.leaves(_tree.partition(window.initial_carry)[0])
    has_rows = len(shape) == 1 and all(leaf.shape[:1] == shape for leaf in leaves)
    return int(shape[0]) if has_rows else None


def check_rows(cell: Cell, loss_fn: LossFn, window: Window) -> int:
    """B; raises ValueError where there are no rows."""
    num_rows = count_rows(cell, loss_fn, window)
    if num_rows is None:
        shapes = jax.tree.map(jnp.shape, _tree.partition(window.initial_carry)[0])
        raise ValueError(
            "per_row=True needs losses of shape [B] and every float leaf of the carry [B, ...]; "
            f"the carry is {shapes}. Leave per_row out where the rows share their boundaries."
        )
    return num_rows


@partial(jax.jit, static_argnames=("cell", "loss_fn"))
def _both_ways(
    cell: Cell, loss_fn: LossFn, params: Any, carry: Any, initial_carry: Any, stream: Stream
) -> tuple[Any, Any]:
    steps = Steps(cell, loss_fn, stream, initial_carry)
    times = jnp.arange(stream.num_steps, dtype=jnp.int32)

    def forward(carry: Any, t: jax.Array) -> tuple[Any, Any]:
        return steps.run(params, carry, t)[0], carry

    _, carries = lax.scan(forward, carry, times)

    def backward(cotangent: Any, t: jax.Array) -> tuple[Any, Any]:
        floats, rest = _tree.partition(_tree.index(carries, t))
        step = partial(steps.differentiable(rest, t), params)
        (_, loss), pull_back, _ = jax.vjp(step, floats, has_aux=True)
        (entering,) = pull_back((cotangent, jnp.ones_like(loss)))
        return entering, entering

    zero = _tree.zeros_like(_tree.partition(carry)[0])
    _, cotangents = lax.scan(backward, zero, times, reverse=True)
    return carries, cotangents


def step_at(cell: Cell, window: Window, t: jax.Array) -> tuple[Callable[[Any, Any], Any], Any]:
    """(step t as `step(params, floats) -> floats`, the floats that enter it)."""
    # The loss plays no part in how a carry follows another.
    steps = Steps(cell, lambda *_: None, window.stream, window.initial_carry)  # type: ignore[arg-type]
    floats, rest = _tree.partition(_tree.index(window.carries, t))

    def step(params: Any, floats: Any) -> Any:
        return _tree.partition(steps.run(params, _tree.combine(floats, rest), t)[0])[0]

    return step, floats


@partial(jax.jit, static_argnames=("cell", "num_lags", "num_rows"))
def lag_gradients(
    cell: Cell, window: Window, u: jax.Array, num_lags: int, num_rows: int | None = None
) -> jax.Array:
    """G_{u,m} for m = 0, …, num_lags − 1; those with m ≥ u are zero.

    Args:
      cell, window, u: u is int32, in 1, …, T − 1.
      num_rows: B gives the parts of the rows each by itself, in B times the time. None: summed.

    Returns:
      `[num_lags, R, P]`, R = B or 1, in the order of `ravel_pytree`.
    """
    crossing = _tree.index(window.cotangents, u)
    if num_rows is None:
        cotangents = _tree.repeat(crossing, 1)
    else:
        rows = jnp.arange(num_rows, dtype=jnp.int32)
        cotangents = jax.vmap(
            lambda row: _tree.select(rows == row, crossing, _tree.zeros_like(crossing))
        )(rows)

    def body(m: jax.Array, loop: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        cotangents, parts = loop
        step, floats = step_at(cell, window, u - 1 - m)
        _, pull_back = jax.vjp(step, window.params, floats)
        grads, cotangents = jax.vmap(pull_back)(cotangents)
        flat = jax.vmap(lambda tree: flatten_util.ravel_pytree(tree)[0])(grads)
        return cotangents, parts.at[m].set(flat)

    flat_params = flatten_util.ravel_pytree(window.params)[0]
    parts = jnp.zeros((num_lags, num_rows or 1, flat_params.size), flat_params.dtype)
    return lax.fori_loop(0, jnp.minimum(u, num_lags), body, (cotangents, parts))[1]


@partial(jax.jit, static_argnames=("cell", "num_lags", "num_rows"))
def lag_projections(
    cell: Cell,
    window: Window,
    u: jax.Array,
    direction: Any,
    num_lags: int,
    num_rows: int | None = None,
) -> jax.Array:
    """G_{u,m} · z for a direction z like params, leaf by leaf, without ever making G.

        τ_t = (∂F_t/∂θ) z,    G_{u,m} · z = b_u (∂s_u/∂s_{u−m}) τ_{u−m}

    τ is one JVP of the cell per leaf, vmapped over the lags; what it is multiplied by is one
    backward pass over u steps that leaves the params alone. Memory: z, and a carry per leaf and
    lag.

    Args:
      num_rows: B gives the products of the rows each by itself, at no extra cost, where rows do not
        interact in the cell. None: summed over rows.

    Returns:
      `[num_lags, R, leaves of params]`, R = B or 1; zero where m ≥ u.
    """
    leaves, treedef = jax.tree.flatten(window.params)
    directions = jax.tree.leaves(direction)

    def tangents_at(m: jax.Array) -> list[Any]:
        step, floats = step_at(cell, window, jnp.maximum(u - 1 - m, 0))

        def of_leaf(i: int) -> Any:
            def with_leaf(leaf: jax.Array) -> Any:
                return step(treedef.unflatten([*leaves[:i], leaf, *leaves[i + 1 :]]), floats)

            return jax.jvp(with_leaf, (leaves[i],), (directions[i],))[1]

        return [of_leaf(i) for i in range(len(leaves))]

    tangents = jax.vmap(tangents_at)(jnp.arange(num_lags, dtype=jnp.int32))

    def body(m: jax.Array, loop: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        cotangent, products = loop
        found = [_product(cotangent, _tree.index(tangent, m), num_rows) for tangent in tangents]
        step, floats = step_at(cell, window, u - 1 - m)
        _, pull_back = jax.vjp(partial(step, window.params), floats)
        (cotangent,) = pull_back(cotangent)
        return cotangent, products.at[m].set(jnp.stack(found, axis=-1))

    dtype = jnp.result_type(float)
    products = jnp.zeros((num_lags, num_rows or 1, len(leaves)), dtype)
    loop = (_tree.index(window.cotangents, u), products)
    return lax.fori_loop(0, jnp.minimum(u, num_lags), body, loop)[1]


def random_signs(rng_key: jax.Array, params: Any) -> Any:
    """A direction of independent signs ±1, like params: E[(G · z)²] = ‖G‖²."""
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(rng_key, len(leaves))
    signs = [
        jax.random.rademacher(key, leaf.shape, leaf.dtype)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return treedef.unflatten(signs)


def _product(cotangent: Any, tangent: Any, num_rows: int | None) -> jax.Array:
    """Their inner product row by row, `[R]`, in JAX's default float dtype."""
    dtype = jnp.result_type(float)

    def of_leaf(a: jax.Array, b: jax.Array) -> jax.Array:
        product = a.astype(dtype) * b.astype(dtype)
        return jnp.sum(jnp.reshape(product, (num_rows or 1, -1)), axis=1)

    products = jax.tree.leaves(jax.tree.map(of_leaf, cotangent, tangent))
    return sum(products[1:], products[0])


def steps_of(window: Window) -> np.ndarray:
    """The steps that a gate sits behind: u = 1, …, T − 1, int32."""
    return np.arange(1, window.stream.num_steps, dtype=np.int32)
