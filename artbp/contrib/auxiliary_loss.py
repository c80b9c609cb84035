"""Auxiliary losses at random anchors: a decoder reconstructs or predicts the inputs.

The losses of `loss_fn` are taken at all steps of a chunk at once, so a decoder in `loss_fn` or in
the cell would run at every step. Here an estimator is wrapped instead: it computes the gradient of
the main losses as without the wrapper, and the gradients at the few anchors are added.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp._checks import check_function, check_integer, check_positive
from artbp.estimators.base import (
    EstimatorState,
    GradientEstimator,
    Result,
    check_chunk,
    check_estimator,
    check_state,
    join_extra,
)
from artbp.stream import RowsOfDevice, Stream
from artbp.unrolls.checks import Cell, check_stream

Window = Literal["before", "after"]

# Folded into the key first, so that no key of an anchor is one with which an estimator draws.
_DOMAIN = 0x616E6368


class _State(NamedTuple):
    """The inner state of the wrapped estimator, and the way to the next anchor.

    Attributes:
      of_estimator: the inner state of the estimator that is wrapped.
      block: the next anchor is in steps block · anchor_every, ..., (block + 1) · anchor_every − 1.
      step, carry: the carry that enters this step, from which the next anchor is reached. The step
        is never after the first one through which its gradient flows.
    """

    of_estimator: Any
    block: jax.Array
    step: jax.Array
    carry: Any


class _Sums(NamedTuple):
    grads: Any
    loss: jax.Array
    count: jax.Array


def with_auxiliary_loss(
    estimator: GradientEstimator,
    cell: Cell,
    decoder: Cell,
    decoder_loss: Callable[[Any, Any, Any], jax.Array],
    *,
    window: Window,
    window_length: int,
    truncation_length: int,
    anchor_every: int,
    weight: float = 1.0,
    normalizer: float = 1.0,
) -> GradientEstimator:
    """Adds the gradient of auxiliary losses at random anchors to that of an estimator::

        tbptt = artbp.tbptt(cell, loss_fn, truncation_length=20, normalizer=20 * rows)
        estimator = artbp.contrib.with_auxiliary_loss(
            tbptt, cell, decoder, decoder_loss, window="before", window_length=16,
            truncation_length=16, anchor_every=100, normalizer=100 * rows)
        state = estimator.init((params, decoder_params), carry, rng_key=key)

    The params of the new estimator, and its gradients, are pairs: those of `cell` and `loss_fn`,
    and those of the decoder.

    Each pass draws new anchors: one step a, uniform, in every `anchor_every` steps. A decoder
    starts with the carry s_a after the anchor. It predicts the inputs of a window w of
    l = `window_length` steps, one after the other, and is then fed each of them::

        d, x = s_a, x_a
        for i in range(l):
            d, y = decoder((params, decoder_params), d, x)
            loss += decoder_loss((params, decoder_params), y, w[i]) / l
            x = w[i]

    The window is x_{a−l}, ..., x_{a−1} ("before": reconstruction, as in r-LSTM) or
    x_{a+1}, ..., x_{a+l} ("after": prediction, as in p-LSTM). There is no loss at an anchor whose
    window is not within the stream, and none for a row with a reset between anchor and window or
    within the window. The objective of a pass is the sum of the main losses, plus `weight` times
    the sum of the auxiliary losses over anchors and rows.

    The gradient of an auxiliary loss flows through the decoder and then through the last
    `truncation_length` steps of the cell, of which the anchor is the last. The boundaries and edges
    of the estimator do not cut it. With frozen params, a pass therefore adds the same to the
    gradients of every estimator.

    Work: for an anchor, a forward and a backward pass through `truncation_length` steps of the cell
    and `window_length` steps of the decoder. Besides, the cell runs again from the start of an
    estimate, or from the anchor before, to the first of these steps: at most the steps of an
    estimate and `truncation_length`. For `artbp.bptt` this is one more forward pass.

    `info.extra` has `auxiliary_loss`, the sum of the auxiliary losses of the estimate without
    `weight`, and `num_auxiliary_losses`, their number. The main losses are as without the wrapper.

    Args:
      estimator: any, of this cell. Danger: it must not start segments with the first carry
        (`segment_start="initial"`), which is not checked.
      cell: that of the estimator.
      decoder: `decoder(pair, carry, x) -> (carry, y)`; its carry has the form of the cell's. It is
        given both params, so it may share weights with the cell.
      decoder_loss: `decoder_loss(pair, y, x) -> [B]`, or a scalar without a batch.
      window: "before" or "after".
      window_length: l ≥ 1, the number of inputs that the decoder predicts.
      truncation_length: steps of the cell through which the gradient flows, 1 or more.
      anchor_every: steps, 1 or more.
      weight: of the auxiliary losses, above 0.
      normalizer: a constant that divides their gradient.

    Returns:
      An estimator whose state has the estimator's inner state and one more carry. It needs the
      whole sequence in one stream, without `artbp.data_parallel`.

    Raises:
      TypeError, ValueError: arguments of another kind; from `init` and `estimate`, as those of the
        estimator.

    Source: Trinh, Dai, Luong & Le (2018), arXiv 1803.00144. There, a subsequence anywhere before
    the anchor is reconstructed, from its first input on, and pretraining on the auxiliary losses
    comes first. For such a pretraining, mask the main losses.
    """
    check_estimator(estimator)
    check_function(cell=cell, decoder=decoder, decoder_loss=decoder_loss)
    if window not in get_args(Window):
        raise ValueError(f"window={window!r}; expected 'before' or 'after'.")
    check_integer(1, window_length=window_length, truncation_length=truncation_length)
    check_integer(1, anchor_every=anchor_every)
    check_positive(weight=weight, normalizer=normalizer)

    def init(
        params: Any, carry: Any, *, rng_key: jax.Array, initial_carry: Any = None
    ) -> EstimatorState:
        main, _ = _split(params)
        state = estimator.init(main, carry, rng_key=rng_key, initial_carry=initial_carry)
        own = state.position, state.position, state.carry
        copies = jax.tree.map(jnp.copy, own)  # see `base.start`
        return state._replace(inner_state=_State(state.inner_state, *copies))

    def estimate(params: Any, state: EstimatorState, stream: Stream) -> Result:
        check_state(state)
        check_stream(stream)
        check_chunk(stream, None)
        if isinstance(stream, RowsOfDevice):
            raise ValueError(
                "with_auxiliary_loss got rows that are split over devices (artbp.data_parallel); "
                "expected all rows on one device. Use one device, or leave the auxiliary losses "
                "out."
            )
        main, _ = _split(params)
        of_estimator = state._replace(inner_state=state.inner_state.of_estimator)
        grads, new_state, info = estimator.estimate(main, of_estimator, stream)
        own, sums = at_anchors(_tree.as_arrays(params), state, stream, info.length)
        of_main, of_decoder = _tree.astype(sums.grads, _tree.as_arrays(params))
        grads = _tree.accumulate(grads, of_main), of_decoder
        extra: dict[str, Any] = {"auxiliary_loss": sums.loss, "num_auxiliary_losses": sums.count}
        info = info._replace(extra=join_extra(extra, info.extra))
        return grads, new_state._replace(inner_state=_State(new_state.inner_state, *own)), info

    @jax.jit
    def at_anchors(
        params: Any, state: EstimatorState, stream: Stream, length: Any
    ) -> tuple[tuple[jax.Array, jax.Array, Any], _Sums]:
        """((block, step, carry) of the new state, sums over the anchors of the estimate)."""
        begin = jnp.asarray(state.position, jnp.int32)
        end = begin + jnp.asarray(length, jnp.int32)
        before = (jnp.asarray(state.num_steps) - begin).astype(jnp.uint32)  # another in each pass
        key = jax.random.fold_in(jax.random.fold_in(state.rng_key, _DOMAIN), before)

        def draw(block: jax.Array) -> jax.Array:
            own = jax.random.fold_in(key, block.astype(jnp.uint32))
            return block * anchor_every + jax.random.randint(own, (), 0, anchor_every, jnp.int32)

        stored: _State = state.inner_state
        block = jnp.where(begin == 0, jnp.zeros_like(stored.block), stored.block)
        anchor = draw(block)
        # It is reached from the start of this estimate, unless its gradient flows farther back.
        is_nearer = (begin == 0) | (first_step(anchor) >= begin)
        reached = _tree.select(is_nearer, (begin, state.carry), (stored.step, stored.carry))

        def body(loop: Any) -> Any:
            block, anchor, reached, sums = loop
            target = first_step(anchor)
            step, carry = lax.while_loop(
                lambda at: at[0] < target,
                lambda at: (at[0] + 1, run(params, at[1], state, stream, at[0])),
                reached,
            )
            value_and_grad = jax.value_and_grad(loss_at, has_aux=True)
            (loss_sum, count), grads = value_and_grad(params, carry, state, stream, anchor)
            new = _Sums(grads, loss_sum.astype(sums.loss.dtype), count)
            return block + 1, draw(block + 1), (step, carry), _tree.accumulate(sums, new)

        zero = jnp.zeros((), jnp.result_type(float)), jnp.zeros((), jnp.int32)
        loop = block, anchor, reached, _Sums(_tree.zero_sums(params), *zero)
        block, _, reached, sums = lax.while_loop(lambda loop: loop[1] < end, body, loop)
        scale = weight / normalizer
        grads = jax.tree.map(lambda grad: scale * grad, sums.grads)
        return (block, *reached), sums._replace(grads=grads)

    def first_step(anchor: jax.Array) -> jax.Array:
        """The first step of the cell through which the gradient flows."""
        return jnp.maximum(anchor - (truncation_length - 1), 0)

    def run(params: Any, carry: Any, state: EstimatorState, stream: Stream, step: jax.Array) -> Any:
        """The carry after a step."""
        if stream.resets is not None:
            reset = _tree.index(jnp.asarray(stream.resets), step)
            carry = _tree.replace(reset, state.initial_carry, carry)
        return cell(params[0], carry, _tree.index(stream.xs, step))[0]

    def loss_at(
        params: Any, carry: Any, state: EstimatorState, stream: Stream, anchor: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """(the sum of an anchor's losses over rows, their number).

        `carry` enters the first step through which the gradient flows.
        """

        def advance(carry: Any, step: jax.Array) -> tuple[Any, None]:
            new = run(params, carry, state, stream, jnp.maximum(step, 0))
            return _tree.select(step >= 0, new, carry), None

        def decode(carry: Any, inputs: Any) -> tuple[Any, jax.Array]:
            x, following = inputs
            carry, y = decoder(params, carry, x)
            return carry, decoder_loss(params, y, following)

        of_cell = jnp.arange(1 - truncation_length, 1, dtype=jnp.int32)
        carry, _ = lax.scan(advance, carry, anchor + of_cell)
        begin = anchor - window_length if window == "before" else anchor + 1
        steps = begin + jnp.arange(window_length, dtype=jnp.int32)
        is_inside = (begin >= 0) & (begin + window_length <= stream.num_new)
        fed = jnp.concatenate([anchor[None], steps[:-1]])
        steps, fed = (jnp.clip(at, 0, stream.num_steps - 1) for at in (steps, fed))
        xs = _tree.gather(stream.xs, fed), _tree.gather(stream.xs, steps)
        losses = jnp.mean(lax.scan(decode, carry, xs)[1], axis=0)
        if stream.resets is not None:
            later = steps + int(window == "before")  # a sequence may begin with the window
            resets = _tree.gather(jnp.asarray(stream.resets), later)
            is_inside &= ~jnp.any(resets, axis=0)
        counts = is_inside | jnp.zeros_like(losses, bool)
        total = jnp.sum(jnp.where(counts, losses, jnp.zeros_like(losses)))
        return total, jnp.sum(counts, dtype=jnp.int32)

    return GradientEstimator(init, estimate)


def _split(params: Any) -> tuple[Any, Any]:
    """The two parts of the params."""
    if not isinstance(params, tuple) or len(params) != 2:
        raise ValueError(
            f"params is of type {type(params).__name__}; expected the pair (params of cell and "
            "loss_fn, params of the decoder)."
        )
    return params
