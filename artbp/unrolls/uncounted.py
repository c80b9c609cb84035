"""Steps and rows whose loss does not count, given the values of one whose loss counts.

A mask on the losses alone does not keep them out of the gradient: a loss that is not finite, or has
no derivative, at a masked y or target gives 0 · NaN, which is NaN. So the loss function is given
other values there, at which it is differentiated anyway.
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
    rows to find out. If that fails, for instance because it closes over an array of B entries, only
    steps at which no row counts are replaced, and elsewhere entries that are not finite.

    Args:
      loss_fn, params, ys, targets: as for `readout.loss_and_count`.
      valid: bool `[R]` or `[R, B]`.
    """
    if valid.ndim == 2 and valid.shape[1] == 1:
        valid = valid[:, 0]
    counts = valid if valid.ndim == 1 else jnp.any(valid, axis=1)
    first = jnp.argmax(counts)
    uncut = jnp.any(counts)
    params = jax.tree.map(lambda x: jnp.where(uncut, x, lax.stop_gradient(x)), params)
    known = (True, True) if valid.ndim == 1 else _have_rows(loss_fn, params, ys, targets, valid)

    def of_leaf(leaf: jax.Array, has_known_rows: bool) -> jax.Array:
        if _tree.is_key(leaf):
            return leaf
        example = lax.stop_gradient(_tree.index(leaf, first))
        leaf = _where(counts, leaf, example[None])
        if valid.ndim == 1 or leaf.shape[1:2] != valid.shape[1:]:
            return leaf
        flags = valid
        if not has_known_rows:
            if not _tree.is_inexact(leaf):
                return leaf
            flags = _tree.align(valid, leaf) | jnp.isfinite(leaf)
        of_step = _tree.index(valid, first)
        is_first = jnp.arange(of_step.size) == jnp.argmax(of_step)
        of_row = _where(is_first, example, jnp.zeros_like(example))
        return _where(flags, leaf, jnp.sum(of_row, axis=0, dtype=leaf.dtype)[None, None])

    ys = jax.tree.map(lambda leaf: of_leaf(leaf, known[0]), ys)
    return params, ys, jax.tree.map(lambda leaf: of_leaf(leaf, known[1]), targets)


def _where(flags: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    """`jnp.where`, with flags `[R]` or `[R, B]` that may be sharded unlike the leaf `yes`."""
    return jnp.where(_tree.align(flags, yes) | jnp.zeros_like(yes, bool), yes, no)


def _have_rows(
    loss_fn: Any, params: Any, ys: Any, targets: Any, valid: jax.Array
) -> tuple[bool, bool]:
    """Whether it is known that arrays `[R, B, ...]` have rows: (those of ys, those of targets)."""
    num_rows = valid.shape[1]
    loss_fn = getattr(loss_fn, "of_any_shape", loss_fn)  # one that `closure.hoist` traced is not
    step = jax.eval_shape(lambda tree: _tree.index(tree, 0), (ys, targets))

    def doubled(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        if leaf.shape[:1] != (num_rows,):
            return leaf
        return leaf.update(shape=(2 * num_rows, *leaf.shape[1:]))

    for have_rows in ((True, True), (True, False)):
        y, target = (
            jax.tree.map(doubled, tree) if flag else tree
            for tree, flag in zip(step, have_rows, strict=True)
        )
        try:
            returned = jax.eval_shape(loss_fn, params, y, target)
        except Exception:  # whatever a user's function raises for other shapes
            continue
        losses = returned[0] if isinstance(returned, tuple) else returned
        if losses.shape == (2 * num_rows,):
            return have_rows
    return False, False
