"""The losses of many steps at once, masked and summed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.stream import RowsOfDevice, Stream
from artbp.unrolls.narrow import Summation, for_steps, summation
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
    is_differentiated: bool = True,
) -> tuple[jax.Array, Counted]:
    """Sums `loss_fn` over the valid steps and rows of a run of steps.

        loss = Σ_t Σ_b valid[t, b] · loss_fn(params, ys[t], targets[t])[b]

    A float `valid` holds weights. The losses are masked, not the ys, because the loss of a zeroed y
    need not be zero (the cross-entropy of equal logits is ln V). All steps go through `loss_fn`
    together, so a readout is one large matrix product instead of one small product per step (but
    see `narrow`).

    Args:
      loss_fn: losses of one step, `[B]`, or a scalar where there is no batch; or the pair of these
        and a dictionary of further values, each with the shape of the losses.
      params: as for the cell.
      ys, targets: pytrees of arrays `[R, ...]`.
      valid: bool `[R]` or `[R, B]`; or float, weights. A weight of 0 means the same as False.
      is_masked: whether ys and targets that are not valid may hold anything, NaN too. They then
        have no influence on the gradient, see `replace_uncounted`. False where they are copies of
        valid ones.
      is_differentiated: whether the gradient by params is to be summed in float32, see `narrow`.

    Returns:
      (loss, float scalar; what is summed with it).

    Raises:
      TypeError: the losses are not floats.
      ValueError: the losses of a step are neither `[B]` nor a scalar, or `valid` has more axes; the
        further values are not a dictionary of arrays with the shape of the losses.
    """
    weights = None if valid.dtype == bool else valid
    valid = valid.astype(bool)
    if is_masked:
        params, ys, targets = replace_uncounted(loss_fn, params, ys, targets, valid)
    how: Summation = "shared"
    if is_differentiated and len(valid) > 1:
        of_step = jax.eval_shape(lambda: _tree.index((ys, targets), 0))
        how = summation(loss_fn, params, *of_step)
    losses, extra = split_extra(for_steps(how, loss_fn, params, ys, targets))
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
    if not jnp.issubdtype(losses.dtype, jnp.floating):
        raise TypeError(
            f"loss_fn returned losses of dtype {losses.dtype}; expected real floats. Return "
            "losses.astype(float), and flags or counts beside the losses, as (losses, extra)."
        )
    valid = _tree.align(valid, losses) | jnp.zeros_like(losses, dtype=bool)  # sharded as losses

    def total(values: jax.Array) -> jax.Array:
        like = values if weights is None or _tree.is_inexact(values) else weights
        dtype = _tree.at_least_float32(like.dtype) if _tree.is_inexact(like) else jnp.int32
        values = jnp.where(valid, values, jnp.zeros_like(values))
        if weights is not None:
            values = _tree.align(weights, values).astype(dtype) * values.astype(dtype)
        return jnp.sum(values, dtype=dtype)

    return total(losses), Counted(jnp.sum(valid, dtype=jnp.int32), jax.tree.map(total, extra))


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


def check_losses_by_row(loss_fn: LossFn, params: Any, y: Any, target: Any, stream: Stream) -> None:
    """Raises ValueError unless a device that has a part of the rows has one loss for each of them.

    Args:
      y, target: those of one step, arrays or their shapes.
    """
    if not isinstance(stream, RowsOfDevice):
        return
    losses = split_extra(jax.eval_shape(loss_fn, params, y, target))[0]
    rows = getattr(losses, "shape", ())
    if rows != (stream.num_rows,):
        raise ValueError(
            f"loss_fn returned losses of shape {rows} for one step, but a device has "
            f"{stream.num_rows} of the rows; expected one loss for each row, [B]. A mean over "
            "the rows of a device is another one than over all rows, and the gradients of the "
            "devices are summed. Return one loss per row, and divide by the number of all rows "
            "in normalizer."
        )


def nothing_counted(
    cell: Callable[..., Any], loss_fn: LossFn, params: Any, carry: Any, stream: Stream
) -> Counted:
    """Zeros to add the counted sums of steps to. Cell and loss are traced, not run."""
    x, target = jax.eval_shape(lambda: _tree.index((stream.xs, stream.targets), 0))
    y = jax.eval_shape(cell, params, carry, x)[1]
    check_losses_by_row(loss_fn, params, y, target, stream)

    def one_step(params: Any, y: Any, target: Any) -> Counted:
        y, target = _tree.repeat((y, target), 1)
        mask = stream.mask
        valid = jnp.ones((1,), bool) if mask is None else jnp.ones_like(mask[:1])
        return loss_and_count(loss_fn, params, y, target, valid, is_masked=False)[1]

    return jax.tree.map(_tree.zeros, jax.eval_shape(one_step, params, y, target))
