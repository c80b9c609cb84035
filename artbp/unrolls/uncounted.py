"""Replaces outputs and targets of masked steps and rows, so that a NaN there reaches no gradient.

A mask on the losses alone is not enough: a loss that is not finite, or has no derivative, at a
masked output or target gives 0 · NaN, which is NaN. So the loss function gets the values of a step
and row that counts there.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree


def replace_uncounted(
    loss_fn: Any, params: Any, ys: Any, targets: Any, valid: jax.Array
) -> tuple[Any, Any, Any]:
    """Returns params, ys and targets on which the losses of R steps are to be differentiated.

    The values and gradients of the losses that count are unchanged. The other ys and targets are
    replaced by those of the first step and row that counts, and receive no gradient. Where nothing
    counts, params receive none either.

    With a mask by row, it has to be known which arrays have rows: with B = 3, an array `[R, 3]` may
    hold three rows or three features that all rows share. `loss_fn` is traced with twice as many
    rows to find out. An array is taken for one of rows if the loss can only have twice as many rows
    where this array has. Of other arrays, steps at which no row counts are replaced, and elsewhere
    entries that are not finite. So are those of a loss that cannot have more rows, for instance
    because it closes over an array of B entries.

    Danger: the loss of a row must not depend on the ys and targets of other rows. A loss that
    compares rows, or subtracts their mean, would meet the first row that counts several times.

    Args:
      loss_fn, params, ys, targets: as for `readout.loss_and_count`.
      valid: bool `[R]` or `[R, B]`.
    """
    if valid.ndim == 2 and valid.shape[1] == 1:
        valid = valid[:, 0]
    counts = valid if valid.ndim == 1 else jnp.any(valid, axis=1)
    first = jnp.argmax(counts)
    any_counts = jnp.any(counts)
    params = jax.tree.map(lambda x: jnp.where(any_counts, x, lax.stop_gradient(x)), params)

    def of_leaf(leaf: jax.Array, has_rows: bool) -> jax.Array:
        if _tree.is_key(leaf):
            return leaf
        example = lax.stop_gradient(_tree.index(leaf, first))
        leaf = _where(counts, leaf, example[None])
        if valid.ndim == 1 or leaf.shape[1:2] != valid.shape[1:]:
            return leaf
        flags = valid
        if not has_rows:
            if not _tree.is_inexact(leaf):
                return leaf
            flags = _tree.align(valid, leaf) | jnp.isfinite(leaf)
        of_step = _tree.index(valid, first)
        is_first = jnp.arange(of_step.size) == jnp.argmax(of_step)
        of_row = _where(is_first, example, jnp.zeros_like(example))
        return _where(flags, leaf, jnp.sum(of_row, axis=0, dtype=leaf.dtype)[None, None])

    leaves, treedef = jax.tree.flatten((ys, targets))
    with_rows = set() if valid.ndim == 1 else _with_rows(loss_fn, params, ys, targets, valid)
    replaced = [of_leaf(leaf, i in with_rows) for i, leaf in enumerate(leaves)]
    return params, *treedef.unflatten(replaced)


def _where(flags: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    """`jnp.where`, with flags `[R]` or `[R, B]` that may be sharded unlike the leaf `yes`."""
    return jnp.where(_tree.align(flags, yes) | jnp.zeros_like(yes, bool), yes, no)


def _with_rows(loss_fn: Any, params: Any, ys: Any, targets: Any, valid: jax.Array) -> set[int]:
    """Which leaves of (ys, targets), by number, are known to have rows."""
    num_rows = valid.shape[1]
    loss_fn = getattr(loss_fn, "of_any_shape", loss_fn)  # one that `closure.hoist` traced is not
    step = jax.eval_shape(lambda tree: _tree.index(tree, 0), (ys, targets))
    leaves, treedef = jax.tree.flatten(step)

    def can_have_twice(doubled: set[int]) -> bool:
        """Whether the loss has twice as many rows if these leaves have."""
        shapes = [
            leaf.update(shape=(2 * num_rows, *leaf.shape[1:])) if i in doubled else leaf
            for i, leaf in enumerate(leaves)
        ]
        try:
            returned = jax.eval_shape(loss_fn, params, *treedef.unflatten(shapes))
        except Exception:  # whatever a user's function raises for other shapes
            return False
        losses = returned[0] if isinstance(returned, tuple) else returned
        return losses.shape == (2 * num_rows,)

    candidates = {i for i, leaf in enumerate(leaves) if leaf.shape[:1] == (num_rows,)}
    of_ys = {i for i in candidates if i < len(jax.tree.leaves(ys))}
    for doubled in (candidates, of_ys):
        if can_have_twice(doubled):
            return {i for i in doubled if not can_have_twice(doubled - {i})}
    return set()
