"""The gated unroll: `jax.lax.scan` over a cell with a factor on the carry's cotangent.

It stores what the backward pass needs for all T steps, so it is exact and simple, and its
memory grows with T. The segment kernels beside it give the same gradients in the memory of one
segment and are tested against it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.unrolls.checks import Cell, check_cell
from artbp.unrolls.gate import gate


def unroll(
    cell: Cell,
    params: Any,
    carry: Any,
    xs: Any,
    *,
    gates: jax.Array | None = None,
    resets: jax.Array | None = None,
    initial_carry: Any = None,
    lengths: jax.Array | None = None,
    unroll: int = 1,
) -> tuple[Any, Any]:
    """Runs `cell` along `xs`, with gates on the gradient that flows back through the carry.

    What it means, for one row::

        for t in range(T):
            if resets[t]: carry = initial_carry
            carry, ys[t] = cell(params, carry, xs[t])
            carry = gate(carry, gates[t])     # value unchanged, cotangent times gates[t]

    so that with δ_t the cotangent of the carry after step t and s_t its value,

        δ_t = (∂L/∂s_t through y) + gates[t] · (∂F_{t+1}/∂s_t)ᵀ δ_{t+1}.

    All gates 1: backpropagation through time. Gates 0 at every multiple of K: TBPTT. Gates
    (1 − X_t)/(1 − c_t): ARTBP (Tallec & Ollivier, arXiv 1705.08209). `jax.lax.scan` is this
    function without gates, resets and lengths.

    Differentiable in `params`, `carry`, `xs` and `initial_carry`, in forward and reverse mode;
    works under jit, vmap, grad and sharding as `jax.lax.scan` does.

    Args:
      cell: `cell(params, carry, x) -> (carry, y)`.
      params: any pytree, handed to the cell.
      carry: any pytree; integer and key leaves pass through ungated. With row-wise `gates`
        every float leaf is `[B, ...]`, with row-wise `resets` or `lengths` every leaf.
      xs: any pytree of arrays `[T, B, ...]` (or `[T, ...]` without a batch), or None for a cell
        without input; then T is the length of `gates` or `resets`.
      gates: float `[T]` or `[T, B]`. gates[t] multiplies the cotangent that flows from step t+1
        back into the carry after step t; gates[T−1] multiplies the caller's cotangent on the
        returned carry. Default: all ones.
      resets: bool `[T]` or `[T, B]`. Where true, the carry that enters step t is
        `initial_carry`, ungated, and nothing flows back to the old carry.
      initial_carry: like `carry`. Default: zeros (key leaves keep their value).
      lengths: int `[B]`. Row b stops after lengths[b] steps: its carry stays, its later ys are
        zero, its later gates and resets are ignored, and gates[lengths[b]−1, b] acts on its
        returned carry. The values that `xs` holds beyond a row's length have no influence: the
        cell is given the row's last real input there. Every array of `xs` is then `[T, B, ...]`,
        or `[T]` when all rows share it.
      unroll: steps per loop iteration, as in `jax.lax.scan`.

    Returns:
      (carry after the last step, ys `[T, ...]`).

    Raises:
      ValueError: arrays disagree about T or B, or the cell changes the type of the carry.
      TypeError: the cell does not return a pair.
    """
    carry = _tree.as_arrays(carry)
    gates = None if gates is None else jnp.asarray(gates)
    resets = None if resets is None else jnp.asarray(resets, dtype=bool)
    lengths = None if lengths is None else jnp.asarray(lengths)
    num_steps = _num_steps(xs, gates, resets)
    _check_rows(carry, xs, gates, resets, lengths)
    if resets is not None:
        initial_carry = _initial_carry(carry, initial_carry)
    if num_steps:
        check_cell(cell, params, carry, jax.eval_shape(lambda: _tree.index(xs, 0)))

    def step(state: tuple[Any, Any], inputs: Any) -> tuple[tuple[Any, Any], Any]:
        carry, last_x = state
        t, x, gate_t, reset_t = inputs
        active = None if lengths is None else t < lengths.astype(jnp.int32)
        previous = carry
        if reset_t is not None:
            carry = _tree.select(reset_t, initial_carry, carry)
        if active is not None:
            # A masked step still passes through the derivative of the cell, where 0 · NaN is NaN:
            # on an input that the row has met before, the cell is as finite as it was there.
            x = last_x = _on_rows(active, x, last_x)
        carry, y = cell(params, carry, x)
        if gate_t is not None:
            carry = gate(carry, gate_t)
        if active is not None:
            carry = _tree.select(active, carry, previous)
            y = _on_rows(active, y, jax.tree.map(jnp.zeros_like, y))
        return (carry, last_x), y

    inputs = (jnp.arange(num_steps, dtype=jnp.int32), xs, gates, resets)
    first_x = None if lengths is None or not num_steps else _tree.index(xs, 0)
    (carry, _), ys = jax.lax.scan(step, (carry, first_x), inputs, length=num_steps, unroll=unroll)
    return carry, ys


def _num_steps(xs: Any, gates: jax.Array | None, resets: jax.Array | None) -> int:
    """T, agreed on by all arrays."""
    named = {"xs": xs, "gates": gates, "resets": resets}
    found: dict[str, int] = {}
    for name, tree in named.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            label = name + jax.tree_util.keystr(path)
            if not jnp.shape(leaf):
                raise ValueError(f"{label} is a scalar; expected an array of shape [T, ...].")
            found[label] = jnp.shape(leaf)[0]
    if not found:
        raise ValueError(
            "xs is None and neither gates nor resets were given, so the number of steps is "
            "unknown. Pass gates=jnp.ones(T) to run T steps without input."
        )
    if len(set(found.values())) > 1:
        raise ValueError(f"The arrays disagree about the number of steps T: {found}.")
    return next(iter(found.values()))


def _check_rows(
    carry: Any,
    xs: Any,
    gates: jax.Array | None,
    resets: jax.Array | None,
    lengths: jax.Array | None,
) -> None:
    """Checks that row-wise arguments find rows: a leading axis B on every leaf of the carry."""
    rows: dict[str, int] = {}
    for name, array in (("gates", gates), ("resets", resets)):
        if array is not None and array.ndim > 2:
            raise ValueError(f"{name} has shape {array.shape}; expected [T] or [T, B].")
        if array is not None and array.ndim == 2:
            rows[name] = array.shape[1]
    if lengths is not None:
        if lengths.ndim != 1 or not jnp.issubdtype(lengths.dtype, jnp.integer):
            raise ValueError(
                f"lengths has shape {lengths.shape} and dtype {lengths.dtype}; expected "
                "integers, [B]."
            )
        rows["lengths"] = lengths.shape[0]
    if not rows:
        return
    only_gates = lengths is None and (resets is None or resets.ndim < 2)
    for path, leaf in jax.tree_util.tree_leaves_with_path(carry):
        if only_gates and not _tree.is_inexact(leaf):
            continue  # passes through the gate untouched
        if leaf.ndim == 0:
            raise ValueError(
                f"carry{jax.tree_util.keystr(path)} is a scalar, but {', '.join(rows)} differ by "
                "row; expected every leaf of the carry to be [B, ...]."
            )
        rows["carry" + jax.tree_util.keystr(path)] = leaf.shape[0]
    if lengths is not None:
        for path, leaf in jax.tree_util.tree_leaves_with_path(xs):
            if jnp.ndim(leaf) > 1:
                rows["xs" + jax.tree_util.keystr(path)] = jnp.shape(leaf)[1]
    if len(set(rows.values())) > 1:
        raise ValueError(f"The arrays disagree about the number of rows B: {rows}.")


def _initial_carry(carry: Any, initial_carry: Any) -> Any:
    """The carry after a reset, by default zeros of the carry's type."""
    if initial_carry is None:
        return jax.tree.map(lambda x: x if _tree.is_key(x) else jnp.zeros_like(x), carry)
    initial_carry = _tree.as_arrays(initial_carry)
    given = jax.tree.map(lambda x: (x.shape, x.dtype), initial_carry)
    expected = jax.tree.map(lambda x: (x.shape, x.dtype), carry)
    if given != expected:
        raise ValueError(f"initial_carry is {given}; expected the carry's type, {expected}.")
    return initial_carry


def _on_rows(active: jax.Array, new: Any, old: Any) -> Any:
    """`new` on the active rows, `old` on the others; leaves without rows are new throughout."""
    return jax.tree.map(
        lambda a, b: jnp.where(_tree.align(active, a), a, b) if a.ndim else a, new, old
    )
