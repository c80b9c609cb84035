"""The losses of many steps at once, masked and summed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.stream import RowsOfDevice, Stream
from artbp.unrolls.uncounted import replace_uncounted

# Of one step: losses, or the pair (losses, extra) with a dictionary of values like the losses.
LossFn = Callable[[Any, Any, Any], Any]


class Counted(NamedTuple):
    """What is summed along with the losses, and not differentiated.

    Attributes:
      num_losses: how many losses were summed, without those of weight 0, int32 scalar. It does not
        depend on the sizes of the weights.
      extra: the sums of the further values that `loss_fn` returns, by name; {} without any. They
        have the weights of the losses. Sums of integers and flags are int32, and float if weighted.
    """

    num_losses: jax.Array
    extra: dict[str, jax.Array]


class ReadOut(NamedTuple):
    """The losses of a run of R steps, and their gradients.

    Attributes:
      loss_sum: float scalar.
      counted: their number, and the sums of what `loss_fn` returns beside them.
      grads: ∂ loss_sum/∂ params, like params.
      y_cotangents: ∂ loss_sum/∂ ys, on the differentiable leaves of ys `[R, ...]`; None elsewhere.
    """

    loss_sum: jax.Array
    counted: Counted
    grads: Any
    y_cotangents: Any


def read_out(
    loss_fn: LossFn, params: Any, ys: Any, stream: Stream, steps: jax.Array, valid: jax.Array
) -> ReadOut:
    """Takes the losses of R steps of a stream at once, and differentiates their sum.

    Args:
      loss_fn, params, ys: see `loss_and_count`.
      steps: int32 `[R]`, which steps of the stream the ys belong to.
      valid: bool `[R]`; the others do not count, nor do those that the stream masks. Where its mask
        is float, it weights the losses.
    """
    targets = _tree.gather(stream.targets, steps)
    is_masked = stream.mask is not None
    if is_masked:
        valid = masked(_tree.gather(stream.mask, steps), valid)
    float_ys, other_ys = _tree.partition(ys)

    def loss(params: Any, float_ys: Any) -> tuple[jax.Array, Counted]:
        ys = _tree.combine(float_ys, other_ys)
        return loss_and_count(loss_fn, params, ys, targets, valid, is_masked=is_masked)

    value_and_grad = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (loss_sum, counted), (grads, y_cotangents) = value_and_grad(params, float_ys)
    return ReadOut(loss_sum, counted, grads, y_cotangents)


def masked(mask: jax.Array, valid: jax.Array) -> jax.Array:
    """Returns the mask, bool or weights, with False or 0 at the steps that are not valid."""
    return jnp.where(_tree.align(valid, mask), mask, jnp.zeros_like(mask))


def loss_and_count(
    loss_fn: LossFn,
    params: Any,
    ys: Any,
    targets: Any,
    valid: jax.Array,
    *,
    is_masked: bool,
) -> tuple[jax.Array, Counted]:
    """Sums `loss_fn` over the valid steps and rows of a run of steps.

        loss = Σ_t Σ_b valid[t, b] · loss_fn(params, ys[t], targets[t])[b]

    A float `valid` holds weights. The losses are masked, not the ys, because the loss of a zeroed y
    need not be zero (the cross-entropy of equal logits is ln V). All steps go through `loss_fn`
    together, so a readout is one large matrix product instead of one small product per step.

    Args:
      loss_fn: losses of one step, `[B]`, or a scalar where there is no batch; or the pair of these
        and a dictionary of further values, each with the shape of the losses.
      params: as for the cell.
      ys, targets: pytrees of arrays `[R, ...]`.
      valid: bool `[R]` or `[R, B]`; or float, weights. A weight of 0 means the same as False.
      is_masked: whether ys and targets that are not valid may hold anything, NaN too. They then
        have no influence on the gradient, see `replace_uncounted`. False where they are copies of
        valid ones.

    Returns:
      (loss, float scalar; what is summed with it).

    Raises:
      TypeError: the losses are not floats.
      ValueError: ys or targets have another number of rows; the losses of a step are neither `[B]`
        nor a scalar, or `valid` has more axes; the further values are not a dictionary of arrays
        with the shape of the losses.
    """
    weights = None if valid.dtype == bool else valid
    valid = valid.astype(bool)
    if is_masked:
        params, ys, targets = replace_uncounted(loss_fn, params, ys, targets, valid)
    losses, extra = split_extra(jax.vmap(loss_fn, in_axes=(None, 0, 0))(params, ys, targets))
    if not hasattr(losses, "ndim") or losses.ndim not in (1, 2):
        shapes = jax.tree.map(lambda leaf: leaf.shape[1:], losses)
        raise ValueError(
            f"loss_fn returned {shapes} for one step; expected one array of losses of shape [B], "
            "or a scalar where there is no batch. The estimator masks and sums."
        )
    if valid.ndim > losses.ndim or (valid.ndim == 2 and valid.shape[1] != losses.shape[1]):
        raise ValueError(
            f"mask has {valid.shape[1:]} entries a step, but loss_fn returned losses of shape "
            f"{losses.shape[1:]} a step. Let loss_fn return one loss per row of the mask."
        )
    _check_losses(losses, ys, targets)
    valid = _tree.align(valid, losses) | jnp.zeros_like(losses, dtype=bool)  # sharded as losses

    def total(values: jax.Array) -> jax.Array:
        like = values if weights is None or _tree.is_inexact(values) else weights
        dtype = _tree.at_least_float32(like.dtype) if _tree.is_inexact(like) else jnp.int32
        values = jnp.where(valid, values, jnp.zeros_like(values))
        if weights is not None:
            values = _tree.align(weights, values).astype(dtype) * values.astype(dtype)
        return jnp.sum(values, dtype=dtype)

    return total(losses), Counted(jnp.sum(valid, dtype=jnp.int32), jax.tree.map(total, extra))


def _check_losses(losses: jax.Array, ys: Any, targets: Any) -> None:
    """Checks the losses of R steps, `[R, B]` or `[R]`.

    Raises:
      TypeError: they are not real floats.
      ValueError: ys or targets have rows, but not B.
    """
    if not jnp.issubdtype(losses.dtype, jnp.floating):
        raise TypeError(
            f"loss_fn returned losses of dtype {losses.dtype}; expected real floats. Return "
            "losses.astype(float), and flags or counts beside the losses, as (losses, extra)."
        )
    if losses.ndim != 2:
        return
    num_rows = losses.shape[1]
    of_step = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)  # noqa: E731
    ys, targets = jax.eval_shape(of_step, (ys, targets))
    if _rows(ys) and num_rows not in _rows(ys):
        raise ValueError(
            f"loss_fn returned {num_rows} losses a step, but y has {sorted(_rows(ys))} rows; "
            "expected one loss for each row, [B]. Sum or average over the other axes only."
        )
    if 1 in _rows(targets):  # others without rows may be shared on purpose
        check_shared_rows("targets", targets, num_rows)


def check_shared_rows(name: str, tree: Any, num_rows: int) -> None:
    """Raises ValueError if the entries of one step would be broadcast over the rows.

    Entries without axes are shared by all rows, and so are others beside one that has all rows.
    """
    rows = _rows(tree)
    if num_rows == 1 or not rows or (num_rows in rows and 1 not in rows):
        return
    shapes = [leaf.shape for leaf in jax.tree.leaves(tree)]
    raise ValueError(
        f"{name} has the shapes {shapes} at one step, but carry and losses have {num_rows} rows; "
        f"expected arrays [T, B, ...] with B = {num_rows}, or [T] where all rows share a number. "
        "If all rows share an array, repeat it: jnp.broadcast_to(array[:, None], "
        f"(T, {num_rows}, ...))."
    )


def _rows(tree: Any) -> set[int]:
    """The sizes of the first axes at one step, without those of random keys."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim and leaf.dtype != jnp.uint32]
    return {leaf.shape[0] for leaf in leaves}


def split_extra(returned: Any) -> tuple[Any, dict[str, Any]]:
    """(losses, further values) from what a loss function returned, for one step or for many.

    Raises:
      ValueError: the further values are not a dictionary of arrays with the shape of the losses.
    """
    if not isinstance(returned, tuple) or len(returned) != 2:
        return returned, {}
    losses, extra = returned
    shape = getattr(losses, "shape", None)
    if not isinstance(extra, dict) or any(getattr(x, "shape", 0) != shape for x in extra.values()):
        found = jax.tree.map(jnp.shape, extra)
        raise ValueError(
            f"loss_fn returned a pair whose second part has the shapes {found}, with losses of "
            f"shape {shape}; expected (losses, extra), where extra is a dictionary of arrays with "
            "the shape of the losses. They are masked or weighted as the losses are, and summed."
        )
    return losses, extra


def nothing_counted(
    cell: Callable[..., Any], loss_fn: LossFn, params: Any, carry: Any, stream: Stream
) -> Counted:
    """Zeros to add the counted sums of steps to. Cell and loss are traced, not run."""

    def one_step() -> Counted:
        x, target = _tree.index((stream.xs, stream.targets), 0)
        y = cell(params, carry, x)[1]
        losses = split_extra(jax.eval_shape(loss_fn, params, y, target))[0]
        rows = getattr(losses, "shape", ())
        floats = jax.tree.leaves(_tree.partition(carry)[0])
        if len(rows) == 1 and floats and all(leaf.shape[:1] == rows for leaf in floats):
            check_shared_rows("xs", x, *rows)
        y, target = _tree.repeat((y, target), 1)
        valid = jnp.ones((1,), bool if stream.mask is None else jnp.result_type(stream.mask))
        counted = loss_and_count(loss_fn, params, y, target, valid, is_masked=False)[1]
        if isinstance(stream, RowsOfDevice) and rows != (stream.num_rows,):
            raise ValueError(
                f"loss_fn returned losses of shape {rows} for one step, but a device has "
                f"{stream.num_rows} of the rows; expected one loss for each row, [B]. A mean over "
                "the rows of a device is another one than over all rows, and the gradients of the "
                "devices are summed. Return one loss per row, and divide by the number of all rows "
                "in normalizer."
            )
        return counted

    return jax.tree.map(_tree.zeros, jax.eval_shape(one_step))
