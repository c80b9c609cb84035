"""The losses of a whole sequence, forward only, in the memory of one chunk."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp._checks import check_function, check_positive
from artbp.stream import Stream
from artbp.unrolls.arguments import as_carry, complete_initial_carry
from artbp.unrolls.autodiff_recurrence import hand_written
from artbp.unrolls.checks import Cell, check_resets, check_stream
from artbp.unrolls.first_step import check_step
from artbp.unrolls.readout import LossFn, loss_and_count, masked, nothing_counted, split_extra


class Evaluation(NamedTuple):
    """What `evaluate` returns.

    Attributes:
      loss_sum: summed losses, not normalised.
      num_losses: how many losses were summed, without those that are masked or have weight 0.
        loss_sum / num_losses is the mean loss. With a mask of weights, divide loss_sum by the sum
        of the weights yourself for a weighted mean.
      carry: the carry after the last step.
      extra: the sums of what `loss_fn` returns beside the losses, by name, masked or weighted as
        the losses are.
    """

    loss_sum: jax.Array
    num_losses: jax.Array
    carry: Any
    extra: dict[str, jax.Array] = {}  # noqa: RUF012  # read, never written


def evaluate(
    cell: Cell,
    loss_fn: LossFn,
    params: Any,
    carry: Any,
    stream: Stream,
    *,
    initial_carry: Any = None,
    chunk_size: int = 256,
) -> Evaluation:
    """Sums the losses of a stream, without gradients::

        loss_sum, num_losses = 0, 0
        for t in range(T):
            if resets[t]: carry = initial_carry
            carry, y = cell(params, carry, xs[t])
            loss_sum   += sum(loss_fn(params, y, targets[t]) where mask[t])
            num_losses += number of losses where mask[t]

    With frozen params, these are the sums of `info.loss_sum` and `info.num_losses` over a pass of
    any estimator. Steps are run in chunks, and the losses of a chunk are taken together. Beside the
    stream, the memory is that of the ys and the losses of one chunk, whatever T is.

    It can be jitted, vmapped and scanned; jit it, as cell and loss function are traced anew at each
    call otherwise::

        evaluate = jax.jit(functools.partial(artbp.evaluate, cell, loss_fn))
        result = evaluate(params, carry, stream)
        mean_loss = result.loss_sum / result.num_losses

    To evaluate a sequence in pieces, hand the returned carry to the next call. Of a stream of
    `artbp.stream_chunks`, only the new steps are run.

    Args:
      cell, loss_fn: as for `artbp.artbp`; they need no derivative.
      params: any pytree, handed to the cell and to `loss_fn`.
      carry: the carry that enters the first step.
      stream: the data. A loss does not count where `mask` is False; a float mask weights the
        losses.
      initial_carry: the carry after a reset. Default: zeros, as in `artbp.unroll`; None in place of
        a part of the carry that resets leave as it is.
      chunk_size: steps whose ys are in memory at a time. The result depends on it by rounding only.

    Raises:
      TypeError, ValueError: as `estimate` of `artbp.artbp`; a chunk_size that is no integer ≥ 1;
        2³¹ losses or more.
    """
    check_positive(chunk_size=chunk_size, integer=True)
    check_function(cell=cell, loss_fn=loss_fn)
    check_stream(stream)
    params, carry = _tree.as_arrays(params), as_carry(carry)
    initial_carry = complete_initial_carry(carry, initial_carry)
    check_resets(initial_carry, stream.resets)
    x, target = _tree.index((stream.xs, stream.targets), 0)
    y = check_step(cell, loss_fn, params, carry, x, target)
    losses, _ = split_extra(jax.eval_shape(loss_fn, params, y, target))
    num_losses = (stream.num_steps - stream.history) * math.prod(getattr(losses, "shape", ()))
    if num_losses >= 2**31:
        raise ValueError(
            f"The stream has up to {num_losses:,} losses; expected fewer than 2³¹, because they "
            "are counted in int32. Evaluate it in parts: hand the returned carry to the next call."
        )
    recurrence = hand_written(cell, params)
    fields = stream.xs, stream.targets, stream.resets, stream.mask

    def run_chunk(sums: Evaluation, first: Any, count: int) -> Evaluation:
        xs, targets, resets, mask = _tree.slice_steps(fields, first, count)
        steps = first + jnp.arange(count, dtype=jnp.int32)
        exists = steps < (stream.num_steps if stream.stop is None else stream.stop)

        def step(carry: Any, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
            x, reset, exists = inputs
            entering = carry
            if reset is not None:
                entering = _tree.replace(reset, initial_carry, carry)
            if recurrence is None:
                new_carry, y = cell(params, entering, x)
            else:
                new_carry, y, _ = recurrence.step(entering, x)
            return _tree.select(exists, new_carry, carry), y

        inputs = xs if recurrence is None else recurrence.project(xs)
        carry, ys = lax.scan(step, sums.carry, (inputs, resets, exists))
        valid = exists if mask is None else masked(mask, exists)
        is_masked = mask is not None  # for a caller who differentiates the sums
        options = {"is_masked": is_masked, "is_differentiated": False}
        loss, counted = loss_and_count(loss_fn, params, ys, targets, valid, **options)
        new = Evaluation(loss, counted.num_losses, (), counted.extra)
        return _tree.accumulate(sums._replace(carry=()), new)._replace(carry=carry)

    count = stream.num_steps - stream.history
    size = min(chunk_size, count)
    num_chunks, rest = divmod(count, size)
    none, extra = nothing_counted(cell, loss_fn, params, carry, stream)
    no_loss = jnp.zeros_like(none, dtype=jnp.result_type(float))
    before = Evaluation(no_loss, none, carry, extra)

    def run_next(i: Any, sums: Evaluation) -> Evaluation:
        return run_chunk(sums, stream.history + i * size, size)

    sums = lax.fori_loop(0, num_chunks, run_next, before)
    return run_chunk(sums, stream.num_steps - rest, rest) if rest else sums
