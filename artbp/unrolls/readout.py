"""The losses of many steps at once, masked and summed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.stream import Stream

LossFn = Callable[[Any, Any, Any], jax.Array]


class ReadOut(NamedTuple):
    """The losses of a run of R steps, and their gradients.

    Attributes:
      loss_sum: float scalar.
      num_losses: their number, without those of weight 0, int32 scalar.
      grads: ∂ loss_sum/∂ params, like params.
      y_cotangents: ∂ loss_sum/∂ ys, on the differentiable leaves of ys `[R, ...]`; None elsewhere.
    """

    loss_sum: jax.Array
    num_losses: jax.Array
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
    if stream.mask is not None:
        valid = masked(_tree.gather(stream.mask, steps), valid)
    float_ys, other_ys = _tree.partition(ys)

    def loss(params: Any, float_ys: Any) -> tuple[jax.Array, jax.Array]:
        return loss_and_count(loss_fn, params, _tree.combine(float_ys, other_ys), targets, valid)

    value_and_grad = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (loss_sum, num_losses), (grads, y_cotangents) = value_and_grad(params, float_ys)
    return ReadOut(loss_sum, num_losses, grads, y_cotangents)


def masked(mask: jax.Array, valid: jax.Array) -> jax.Array:
    """Returns the mask, bool or weights, with False or 0 at the steps that are not valid."""
    return jnp.where(_tree.align(valid, mask), mask, jnp.zeros_like(mask))


def loss_and_count(
    loss_fn: LossFn, params: Any, ys: Any, targets: Any, valid: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sums `loss_fn` over the valid steps and rows of a run of steps.

        loss = Σ_t Σ_b valid[t, b] · loss_fn(params, ys[t], targets[t])[b]

    A float `valid` holds weights. The losses are masked, not the ys, because the loss of a zeroed y
    need not be zero (the cross-entropy of equal logits is ln V). All steps go through `loss_fn`
    together, so a readout is one large matrix product instead of one small product per step.

    Args:
      loss_fn: losses of one step, `[B]`, or a scalar where there is no batch.
      params: as for the cell.
      ys, targets: pytrees of arrays `[R, ...]`. Float targets that are not finite where the step
        is not valid, such as missing observations, are replaced by 0 before `loss_fn` sees them:
        masking the loss alone would leave 0 · NaN in its gradient.
      valid: bool `[R]` or `[R, B]`; or float, weights. A weight of 0 means the same as False.

    Returns:
      (loss, float scalar; number of losses that are valid, int32 scalar). The number does not
      depend on the sizes of the weights.

    Raises:
      ValueError: the losses of a step are neither `[B]` nor a scalar, or `valid` has more axes.
    """
    weights = None if valid.dtype == bool else valid
    valid = valid.astype(bool)
    targets = jax.tree.map(lambda target: _without_missing(target, valid), targets)
    losses = jax.vmap(loss_fn, in_axes=(None, 0, 0))(params, ys, targets)
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
    valid = _tree.align(valid, losses) | jnp.zeros_like(losses, dtype=bool)  # sharded as losses
    dtype = _tree.at_least_float32(losses.dtype)
    losses = jnp.where(valid, losses, jnp.zeros_like(losses))
    if weights is not None:
        losses = _tree.align(weights, losses).astype(dtype) * losses.astype(dtype)
    loss = jnp.sum(losses, dtype=dtype)
    return loss, jnp.sum(valid, dtype=jnp.int32)


def _without_missing(target: jax.Array, valid: jax.Array) -> jax.Array:
    if not _tree.is_inexact(target) or target.shape[: valid.ndim] != valid.shape:
        return target
    missing = ~_tree.align(valid, target) & ~jnp.isfinite(target)
    return jnp.where(missing, jnp.zeros_like(target), target)
