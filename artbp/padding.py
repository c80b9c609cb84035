"""Padded batches: rows of different lengths in arrays of one length, and rows that never count."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp import _tree


def check_lengths_of_rows(lengths: Any, num_steps: int) -> None:
    """Raises ValueError if lengths that are known are not between 0 and the number of steps.

    Arrays that are traced, or partly in other processes, are not known.
    """
    if not _tree.is_known(lengths):
        return
    values = np.asarray(lengths)
    if values.size and not 0 <= values.min() <= values.max() <= num_steps:
        raise ValueError(
            f"lengths goes from {values.min()} to {values.max()}; expected numbers from 0 to T = "
            f"num_steps = {num_steps}. Clip them, or pass longer arrays."
        )


def without_padding(stream: Any, lengths: Any) -> dict[str, Any]:
    """The fields of a stream whose results do not depend on the steps beyond the lengths of rows.

    A mask on the losses alone would not do: the cell would run on the padding, and 0 · NaN is NaN
    in its derivative. So the padding of `xs` and `targets` is replaced by the first entries of the
    row, real ones, and a reset before each of these steps keeps the carry from growing.

    Args:
      stream: a `Stream` with its number of steps.
      lengths: int `[B]`.

    Returns:
      Its new `xs`, `targets`, `resets` and `mask`. NumPy arrays stay NumPy arrays, on the host.

    Raises:
      ValueError: lengths that are not integers `[B]` between 0 and T, or arrays without these rows.
    """
    lengths = _tree.one_array(lengths)
    num_steps, shape, dtype = stream.num_steps, lengths.shape, lengths.dtype
    if len(shape) != 1 or not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(
            f"lengths has shape {shape} and dtype {dtype}; expected integers of shape [B], the "
            "number of steps of each row."
        )
    fields = stream.xs, stream.targets, stream.resets, stream.mask
    on_host = not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((lengths, fields)))
    xp: Any = np if on_host else jnp
    check_lengths_of_rows(lengths, num_steps)
    lengths = xp.asarray(lengths).astype(np.int32)  # T may not fit the dtype of the lengths
    exists = xp.arange(num_steps, dtype=lengths.dtype)[:, None] < lengths[None, :]

    def by_row(flags: Any, padding: Any) -> Any:
        flags = xp.asarray(flags)
        flags = flags[:, None] if flags.ndim == 1 else flags
        return xp.where(exists, flags, padding(flags))

    def replaced(path: Any, leaf: Any) -> Any:
        if np.ndim(leaf) == 1:
            return leaf  # shared by all rows
        if np.shape(leaf)[1:2] != shape:
            (field, *rest) = path
            raise ValueError(
                f"Stream.{field.key}{jax.tree_util.keystr(tuple(rest))} has shape "
                f"{np.shape(leaf)}, with lengths of shape {shape}; expected [T, B, ...] with B = "
                f"{shape[0]}."
            )
        first = of_real_steps(leaf[0], lengths, xp)
        flags = xp.reshape(exists, exists.shape + (1,) * (leaf.ndim - 2))
        return xp.where(flags, leaf, first[None])

    return {
        **jax.tree_util.tree_map_with_path(replaced, {"xs": stream.xs, "targets": stream.targets}),
        "resets": ~exists if stream.resets is None else by_row(stream.resets, xp.ones_like),
        "mask": exists if stream.mask is None else by_row(stream.mask, xp.zeros_like),
    }


def of_real_steps(first: Any, lengths: Any, xp: Any = jnp) -> Any:
    """Replaces, in entries `[B, ...]` of each row's first step, those of rows without any step.

    These get the entry of the longest row, a real one; or zeros, if all rows are without steps.
    Keys stay: no key is harmful.

    Args:
      lengths: int `[B]`.
      xp: `jax.numpy` or NumPy.
    """
    if _tree.is_key(first) or not lengths.shape[0]:
        return first
    first = xp.asarray(first)
    shape = (-1, *(1,) * (first.ndim - 1))
    has_steps = xp.reshape(lengths > 0, shape)
    rows = xp.arange(lengths.shape[0], dtype=np.int32)
    is_longest = xp.reshape(rows == xp.argmax(lengths).astype(np.int32), shape) & has_steps
    # A sum picks the row, because rows may be split over devices.
    picked = xp.where(is_longest, first, xp.zeros_like(first))
    picked = xp.sum(picked, axis=0, keepdims=True, dtype=first.dtype)
    return xp.where(has_steps, first, picked)


def without_unused_rows(xs: Any, mask: Any) -> Any:
    """Replaces the entries of xs that are not finite, in rows that a mask takes out at all steps.

    The losses of such a row do not count, but the cell runs on it, and 0 · NaN is NaN in the
    gradient of its weights. Arrays are copied only if they hold such entries, as far as is known.

    Args:
      xs: any pytree of arrays; those of shape `[T, B, ...]` have rows.
      mask: bool or float; anything else than a known array `[T, B]` leaves xs as they are.
    """
    if not _tree.is_known(mask) or np.ndim(mask) != 2:
        return xs
    unused = ~np.asarray(mask).astype(bool).any(axis=0)
    if not unused.any():
        return xs

    def of_leaf(leaf: Any) -> Any:
        if np.shape(leaf)[:2] != np.shape(mask) or not _tree.is_inexact(leaf):
            return leaf
        if not isinstance(leaf, jax.Array):
            rows = np.asarray(leaf)[:, unused]
            if np.isfinite(rows).all():
                return leaf
            leaf = np.array(leaf)
            leaf[:, unused] = np.where(np.isfinite(rows), rows, np.zeros_like(rows))
            return leaf
        wrong = _not_finite(leaf, unused)
        if _tree.is_known(leaf) and not wrong.any():
            return leaf
        return jnp.where(wrong, jnp.zeros_like(leaf), leaf)

    return jax.tree.map(of_leaf, xs)


def _not_finite(leaf: jax.Array, rows: Any) -> jax.Array:
    """Which entries `[T, B, ...]` are not finite in the rows of which the flag, `[B]`, is True."""
    return ~jnp.isfinite(leaf) & rows.reshape(1, -1, *(1,) * (leaf.ndim - 2))
