"""Gradients by lag: what the cotangent at a step adds to the gradient through each earlier step.

Let s_t = F(s_{t−1}, x_t; θ) be the carry after step t of a window of T steps. For u = 1, …, T − 1

    b_u     = ∂(ℓ_{u+1} + … + ℓ_T)/∂s_u                the cotangent of the carry after step u
    G_{u,m} = (∂F_{u−m}/∂θ)ᵀ (∂s_u/∂s_{u−m})ᵀ b_u       its gradient in the params used at step u−m

A boundary behind step u removes Σ_m G_{u,m} from the gradient. In code, steps count from 0:
`cotangents[u]` belongs to the carry that enters step u, which is s_u.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from artbp import _tree
from artbp._checks import check_function, hashable
from artbp._draws import vmap_changes_draws
from artbp.diagnostics.real_coordinates import ravel_real
from artbp.estimators.carry_ring import run_backward
from artbp.estimators.real_parts import from_parts, to_parts
from artbp.estimators.stepwise import Steps
from artbp.stream import Stream
from artbp.unrolls.arguments import as_carry, complete_initial_carry
from artbp.unrolls.checks import Cell, check_params, check_resets, check_stream
from artbp.unrolls.first_step import check_step
from artbp.unrolls.readout import LossFn, split_extra


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "initial_carry", "stream", "carries", "cotangents"],
    meta_fields=["cell", "loss_fn", "num_rows"],
)
@dataclasses.dataclass(frozen=True)
class UnrolledWindow:
    """A window of data with the carries and cotangents of one forward and one backward pass.

    Attributes:
      cell, loss_fn: as passed.
      params, initial_carry: as JAX arrays.
      stream: the window.
      carries: the carry that enters each step, `[T, ...]`, before a reset replaces it.
      cotangents: b, on the differentiable leaves of `carries`. Entry 0 has no gate.
      num_rows: B if losses are `[B]` and every float leaf of the carry is `[B, ...]`, else None.
    """

    cell: Cell
    loss_fn: LossFn
    params: Any
    initial_carry: Any
    stream: Stream
    carries: Any
    cotangents: Any
    num_rows: int | None


def unroll_window(
    cell: Cell,
    loss_fn: LossFn,
    params: Any,
    carry: Any,
    stream: Stream,
    initial_carry: Any = None,
    per_row: bool = False,
) -> UnrolledWindow:
    """Runs one forward and one backward pass over the stream. Memory: 2·T carries.

    Args:
      initial_carry: the carry after a reset. Default: zeros.

    Raises:
      TypeError, ValueError: as `estimate` of `artbp.artbp`; per_row without an axis of rows.
    """
    check_function(cell=cell, loss_fn=loss_fn)
    check_params(params)
    params, carry = _tree.as_arrays(params), as_carry(carry)
    check_stream(stream)
    initial_carry = complete_initial_carry(carry, initial_carry)
    check_resets(initial_carry, stream.resets)
    x, target = jax.eval_shape(lambda: _tree.index((stream.xs, stream.targets), 0))
    y = check_step(cell, loss_fn, params, carry, x, target)
    shape = split_extra(jax.eval_shape(loss_fn, params, y, target))[0].shape
    leaves = jax.tree.leaves(_tree.partition(carry)[0])
    has_rows = len(shape) == 1 and all(leaf.shape[:1] == shape for leaf in leaves)
    if per_row and not has_rows:
        raise ValueError(
            "per_row=True needs losses of shape [B] and float leaves of the carry [B, ...]; the "
            f"leaves are {[leaf.shape for leaf in leaves]}. Omit per_row if rows share boundaries."
        )
    cell, loss_fn = hashable(cell), hashable(loss_fn)
    found = _forward_backward(cell, loss_fn, params, carry, initial_carry, stream)
    rows = int(shape[0]) if has_rows else None
    return UnrolledWindow(cell, loss_fn, params, initial_carry, stream, *found, num_rows=rows)


@partial(jax.jit, static_argnames=("cell", "loss_fn"))
def _forward_backward(
    cell: Cell, loss_fn: LossFn, params: Any, carry: Any, initial_carry: Any, stream: Stream
) -> tuple[Any, Any]:
    """Returns (carries, cotangents), both `[T, ...]`."""
    steps = Steps(cell, loss_fn, stream, initial_carry)

    def forward(carry: Any, t: jax.Array) -> tuple[Any, Any]:
        return steps.run(params, carry, t)[0], carry

    _, carries = lax.scan(forward, carry, jnp.arange(stream.num_steps, dtype=jnp.int32))
    end = jnp.int32(stream.num_steps)
    return carries, _cotangents(steps, params, carries, jnp.zeros_like(end), end)


def _cotangents(steps: Steps, params: Any, carries: Any, first: jax.Array, end: jax.Array) -> Any:
    """The cotangents of all carries for the losses of steps first, …, end − 1, `[T, ...]`."""
    return run_backward(
        steps,
        lambda t: params,
        carries,
        *(jnp.zeros_like(end), end),
        _tree.zeros_like(_tree.partition(carries)[0]),
        size=steps.stream.num_steps,
        weight=lambda t: _counts(t, first),
        collect=lambda cotangents, t, _, entering: _tree.update(cotangents, entering, t),
    )


@jax.jit
def flows_through_carry(window: UnrolledWindow) -> tuple[jax.Array, jax.Array]:
    """(whether the losses have a gradient at a carry; whether a carry has one at the next carry).

    The second is tested with random cotangents. NaN counts as a gradient.
    """

    def is_nonzero(tree: Any) -> jax.Array:
        found = jax.tree.map(lambda leaf: jnp.any(leaf != 0), tree)
        return jax.tree.reduce(jnp.logical_or, found, jnp.zeros((), bool))

    def one(t: jax.Array) -> jax.Array:
        step, floats = step_at(window, t)
        after, vjp = jax.vjp(lambda floats: step(window.params, floats), floats)
        return is_nonzero(vjp(optax.tree.random_like(jax.random.key(0), after)))

    steps = jnp.arange(window.stream.num_steps, dtype=jnp.int32)
    return is_nonzero(window.cotangents), jnp.any(lax.map(one, steps))


def _counts(t: jax.Array, first: jax.Array) -> jax.Array:
    """The weight of the loss of step t: 1 from step `first` on."""
    return (t >= first).astype(jnp.result_type(float))


def step_at(window: UnrolledWindow, t: jax.Array) -> tuple[Callable[[Any, Any], Any], Any]:
    """Returns step t as `step(params, floats) -> floats`, and the floats that enter it."""
    steps = Steps(window.cell, window.loss_fn, window.stream, window.initial_carry)
    floats, rest = _tree.partition(_tree.index(window.carries, t))

    def step(params: Any, floats: Any) -> Any:
        return _tree.partition(steps.run(params, _tree.combine(floats, rest), t)[0])[0]

    return step, floats


@jax.jit
def prefix_norms(window: UnrolledWindow, first: jax.Array, end: jax.Array) -> jax.Array:
    """Computes how much of the gradient of ℓ_first + … + ℓ_{end−1} goes through the older steps.

        ‖Σ_{i≤t} g_i‖² for t = 0, …, T − 1,    g_i: the gradient of these losses through step i

    The sums begin at the oldest step. A small one is therefore not the difference of large ones.

    Args:
      first, end: int32, 0 ≤ first < end ≤ T.

    Returns:
      `[T]`, zero for t ≥ end. Time: one backward pass without and one with weight gradients over
      the steps before `end`. Memory: T carries and one gradient.
    """
    steps = Steps(window.cell, window.loss_fn, window.stream, window.initial_carry)
    params, carries = window.params, window.carries
    cotangents = _cotangents(steps, params, carries, first, end)

    def through_step(t: jax.Array, loop: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        sums, norms = loop
        floats, rest = _tree.partition(_tree.index(carries, t))
        step = steps.differentiable(rest, t)
        (_, loss), pull_back, _ = jax.vjp(lambda x: step(x, floats), params, has_aux=True)
        flow = _tree.index(cotangents, jnp.minimum(t + 1, end - 1))
        flow = _tree.select(t + 1 < end, flow, _tree.zeros_like(flow))
        (grads,) = pull_back((flow, _counts(t, first).astype(loss.dtype)))
        sums = _tree.accumulate(sums, grads)
        return sums, norms.at[t].set(optax.tree.norm(sums, squared=True).astype(norms.dtype))

    loop = (_tree.zero_sums(params), jnp.zeros(window.stream.num_steps))
    return lax.fori_loop(0, end, through_step, loop)[1]


@partial(jax.jit, static_argnames=("num_lags", "per_row"))
def lag_gradients(
    window: UnrolledWindow, u: jax.Array, num_lags: int, per_row: bool = False
) -> jax.Array:
    """Computes G_{u,m} for m = 0, …, num_lags − 1; entries with m ≥ u are zero.

    Args:
      u: int32, in 1, …, T − 1.
      per_row: one gradient per row, in B times the time. False: the sum over rows.

    Returns:
      `[num_lags, R, P]`, R = B or 1, in the order of `ravel_real`.
    """
    cotangent = _tree.index(window.cotangents, u)
    cotangents = _tree.repeat(cotangent, 1)
    if per_row:
        zeros, rows = _tree.zeros_like(cotangent), jnp.eye(window.num_rows, dtype=bool)
        cotangents = jax.vmap(lambda is_row: _tree.select(is_row, cotangent, zeros))(rows)

    def body(m: jax.Array, loop: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        cotangents, found = loop
        step, floats = step_at(window, u - 1 - m)
        _, vjp = jax.vjp(step, window.params, floats)
        grads, cotangents = jax.vmap(vjp, axis_size=num_rows)(cotangents)
        flat = jax.vmap(lambda tree: ravel_real(tree)[0])(grads)
        return cotangents, found.at[m].set(flat)

    flat_params = ravel_real(window.params)[0]
    num_rows = (window.num_rows if per_row else None) or 1
    found = jnp.zeros((num_lags, num_rows, flat_params.size), flat_params.dtype)
    return lax.fori_loop(0, jnp.minimum(u, num_lags), body, (cotangents, found))[1]


@partial(jax.jit, static_argnames=("num_lags", "per_row"))
def lag_projections(
    window: UnrolledWindow, u: jax.Array, direction: Any, num_lags: int, per_row: bool = False
) -> jax.Array:
    """Computes G_{u,m} · z for a direction z like params, leaf by leaf, without storing G.

        τ_t = (∂F_t/∂θ) z,    G_{u,m} · z = b_u (∂s_u/∂s_{u−m}) τ_{u−m}

    This is the derivative when params move along z. Of complex leaves it is Re Σ G·z, without a
    conjugate.

    τ takes one JVP of the cell per leaf, for all lags together. The other factor takes one
    backward pass over u steps without weight gradients. Memory: z, and one carry per leaf and lag.

    Args:
      per_row: one product per row, for rows that do not interact. False: the sum over rows.

    Returns:
      `[num_lags, R, leaves of params]`, R = B or 1; zero where m ≥ u.
    """
    num_rows = (window.num_rows if per_row else None) or 1
    leaves, treedef = jax.tree.flatten(window.params)
    directions = jax.tree.leaves(direction)

    def tangents_at(m: jax.Array) -> list[Any]:
        step, floats = step_at(window, jnp.maximum(u - 1 - m, 0))

        def tangent(i: int) -> Any:
            def with_leaf(leaf: jax.Array) -> Any:
                return step(treedef.unflatten([*leaves[:i], leaf, *leaves[i + 1 :]]), floats)

            return jax.jvp(with_leaf, (leaves[i],), (directions[i],))[1]

        return [tangent(i) for i in range(len(leaves))]

    # One lag after another where the cell would draw other noise than in the forward pass.
    one_by_one = vmap_changes_draws(jax.make_jaxpr(tangents_at)(jnp.int32(0)))
    map_lags = partial(lax.map, tangents_at) if one_by_one else jax.vmap(tangents_at)
    tangents = map_lags(jnp.arange(num_lags, dtype=jnp.int32))

    def body(m: jax.Array, loop: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        cotangent, products = loop
        by_leaf = [row_products(cotangent, _tree.index(t, m), num_rows) for t in tangents]
        step, floats = step_at(window, u - 1 - m)
        (cotangent,) = jax.vjp(partial(step, window.params), floats)[1](cotangent)
        return cotangent, products.at[m].set(jnp.stack(by_leaf, axis=-1))

    products = jnp.zeros((num_lags, num_rows, len(leaves)), jnp.result_type(float))
    loop = (_tree.index(window.cotangents, u), products)
    return lax.fori_loop(0, jnp.minimum(u, num_lags), body, loop)[1]


def random_signs(rng_key: jax.Array, params: Any) -> Any:
    """Draws a direction z of independent signs ±1, like params: E[(G · z)²] = ‖G‖².

    A complex number has a sign for each of its parts, ±1 ± i.
    """
    return from_parts(optax.tree.random_like(rng_key, to_parts(params), jax.random.rademacher))


def row_products(cotangent: Any, tangent: Any, num_rows: int) -> jax.Array:
    """Re Σ cotangent · tangent row by row, `[R]`, in JAX's default float dtype.

    JAX pairs cotangents with tangents without a conjugate.
    """
    dtype = jnp.result_type(float)

    def products(a: jax.Array, b: jax.Array) -> jax.Array:
        product = a.real.astype(dtype) * b.real.astype(dtype)
        if jnp.iscomplexobj(a):
            product -= a.imag.astype(dtype) * b.imag.astype(dtype)
        return jnp.reshape(product, (num_rows, -1))

    leaves = jax.tree.leaves(jax.tree.map(products, cotangent, tangent))
    if not leaves:  # a carry without floats
        return jnp.zeros(num_rows, dtype)
    return jnp.sum(jnp.concatenate(leaves, axis=1), axis=1)
