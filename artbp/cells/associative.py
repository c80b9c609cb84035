"""The unroll of a linear diagonal recurrence as an associative scan: its depth grows like log T."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.unrolls.arguments import Arguments, check_arguments
from artbp.unrolls.gate import gate
from artbp.unrolls.unroll import unroll


def associative_unroll(
    cell: Any,
    params: Any,
    carry: Any,
    xs: Any,
    *,
    gates: jax.Array | None = None,
    resets: jax.Array | None = None,
    initial_carry: Any = None,
) -> tuple[Any, Any]:
    """`artbp.unroll` of a linear diagonal cell, such as `artbp.cells.lru`, in parallel over time.

        s_t = λ_t s_{t−1} + u_t,     δ_t = (∂L/∂s_t through y) + gates[t] λ_{t+1} δ_{t+1}

    Both recursions are associative scans. A reset is λ_t = 0, and a gate is a factor of the second
    one. Values and gradients are those of `artbp.unroll` up to rounding. The states of all T steps
    are held at once, as complex numbers.

    Differentiable in `params`, `carry`, `xs` and `initial_carry`, in reverse mode only.

    Args:
      cell: `artbp.cells.lru`, or another cell of `artbp.cells.diagonal_cell` with a `decay`.
      params, carry, xs, gates, resets, initial_carry: as for `artbp.unroll`, but xs is one array,
        floats are float32 or wider and of one dtype, and no part of `initial_carry` is None.

    Returns:
      (carry after the last step, ys `[T, ...]`).

    Raises:
      TypeError: the cell has no `decay`; a carry of another dtype; otherwise as `artbp.unroll`.
      ValueError: a part of `initial_carry` is None; otherwise as `artbp.unroll`.
    """
    if getattr(cell, "decay", None) is None:
        raise TypeError(
            f"cell is {cell!r}; expected a linear diagonal cell, such as artbp.cells.lru. Use "
            "artbp.unroll for other cells."
        )
    arguments = Arguments(params, carry, xs, gates, resets, initial_carry, None)
    arguments, num_steps = check_arguments(cell, arguments)
    _, carry, xs, gates, resets, initial_carry, _ = arguments
    if not num_steps:
        return unroll(cell, params, carry, xs)
    [(layer, own)] = cell.layers(params)
    zeros = jax.tree.map(jnp.zeros_like, carry)
    if zeros[0].dtype.itemsize < 4:
        raise TypeError(
            f"carry has dtype {zeros[0].dtype}; expected float32 or float64. Cast it and the "
            "params, or use artbp.unroll."
        )
    decay = layer.decay(layer.step_arguments(own, zeros, xs[0])[0])
    if lax.complex(*zeros).dtype != decay.dtype:
        raise TypeError(
            f"carry has dtype {zeros[0].dtype} and the decay {decay.dtype}; expected float32 or "
            "float64 for the carry and the params alike. Cast them, or use artbp.unroll."
        )

    def drive(x: jax.Array) -> jax.Array:
        return lax.complex(*layer.step(*layer.step_arguments(own, zeros, x)))

    drives = jax.vmap(drive)(xs)
    factors = jnp.broadcast_to(decay, (num_steps, *decay.shape))
    if resets is not None:
        if len(jax.tree.leaves(initial_carry)) < len(jax.tree.leaves(carry)):
            raise ValueError(
                f"initial_carry is {initial_carry!r}; expected no None in it. Use artbp.unroll for "
                "parts of the carry that resets leave as they are."
            )
        is_reset = _tree.align(resets, drives)
        first = (decay * lax.complex(*initial_carry))[None]
        drives = drives + jnp.where(is_reset, first, 0)
        factors = jnp.where(is_reset, 0, decay[None])
    weights = None if gates is None else _tree.align(gates, drives).astype(drives.dtype)
    states = _linear_scan(factors, drives, lax.complex(*carry), weights)
    like = type(carry)
    ys = jax.vmap(lambda s, x: layer.output(own, like(s.real, s.imag), x))(states, xs)
    last = like(states[-1].real, states[-1].imag)
    return (last if gates is None else gate(last, gates[-1])), ys


@jax.custom_vjp
def _linear_scan(
    factors: jax.Array, drives: jax.Array, first: jax.Array, gates: jax.Array | None
) -> jax.Array:
    """s_t = factors[t] s_{t−1} + drives[t] from s_{−1} = first, `[T, B, H]`.

    factors is `[T, B, H]` or `[T, 1, H]`, gates is `[T, B, 1]` or `[T, 1, 1]`. gates[t]
    multiplies what flows back from step t + 1 into s_t; gates[T − 1] has no effect here.
    """
    del gates
    drives = drives.at[0].add(jnp.where(factors[0] == 0, 0, factors[0] * first))
    return lax.associative_scan(_compose, (factors, drives))[1]


def _compose(one: Any, then: Any) -> Any:
    (factor, drive), (next_factor, next_drive) = one, then
    # Where a reset cuts, a state that is not finite goes no further, though 0 · NaN is NaN.
    carried = jnp.where(next_factor == 0, 0, next_factor * drive)
    return factor * next_factor, carried + next_drive


def _scan_forward(factors: Any, drives: Any, first: Any, gates: Any) -> Any:
    states = _linear_scan(factors, drives, first, gates)
    return states, (factors, states, first, gates)


def _scan_backward(held: Any, cotangents: jax.Array) -> Any:
    factors, states, first, gates = held
    after = jnp.concatenate([factors[1:], jnp.zeros_like(factors[:1])])
    if gates is not None:
        after = gates * after
    deltas = lax.associative_scan(_compose, (after, cotangents), reverse=True)[1]
    previous = jnp.concatenate([first[None], states[:-1]])
    of_factors = deltas * previous
    if factors.shape[1] == 1:
        of_factors = jnp.sum(of_factors, axis=1, keepdims=True)
    of_gates = None if gates is None else jnp.zeros_like(gates)
    return of_factors, deltas, factors[0] * deltas[0], of_gates


_linear_scan.defvjp(_scan_forward, _scan_backward)
