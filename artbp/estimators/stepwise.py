"""Shared driver for estimators that advance a number of steps known before the update.

Each (the online ones, evolution strategies, TBPTT(k1, k2), adaptive and unbiased TBPTT) provides
`advance`, which takes the next steps. This module handles the position, the end of the stream,
checks and normalisation. An estimate is one compiled program.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _devices, _tree
from artbp._checks import as_divisor, check_function, check_positive
from artbp.estimators.base import (
    EstimatorInfo,
    EstimatorState,
    GradientEstimator,
    Plan,
    Result,
    check_chunk,
    check_not_differentiated,
    check_one_run,
    check_position,
    check_state,
    clip_position,
    join_extra,
    make_estimator,
    start,
)
from artbp.stream import Stream
from artbp.unrolls.arguments import as_carry
from artbp.unrolls.checks import (
    Cell,
    check_params,
    check_resets,
    check_stream,
)
from artbp.unrolls.first_step import check_step, warn_of_unused_params
from artbp.unrolls.readout import (
    Counted,
    LossFn,
    check_losses_by_row,
    loss_and_count,
    nothing_counted,
)

BY_ROW = (
    "bptt, tbptt, tbptt_k1_k2, artbp, random_truncation, awd_lstm_bptt, unbiased_tbptt, rtrl, "
    "snap1, forward_gradient, diagonal_rtrl, truncated_es, pes, gpes, nres"
)


class Steps(NamedTuple):
    """The steps of a stream, one at a time, as functions of params and carry."""

    cell: Cell
    loss_fn: LossFn
    stream: Stream
    initial_carry: Any
    given_params: Any = None  # of an estimate; in `jax.shard_map`, the same on every device
    axes: tuple[str, ...] = ()  # of the mesh, over which `jax.shard_map` splits the rows

    def x(self, t: jax.Array) -> Any:
        """The input of step t."""
        return _tree.index(self.stream.xs, t)

    def enter(self, carry: Any, t: jax.Array) -> Any:
        """The carry that enters step t: that before it or, at a reset, the initial one."""
        return self._replace_at_reset(t, self.initial_carry, carry)

    def is_replaced(self, carry: Any, t: jax.Array) -> Any:
        """Whether `enter` replaces the rows of each leaf: bool `[B]`, in a tree like the carry."""
        by_row = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[:1], bool), carry)
        return self._replace_at_reset(
            t, jax.tree.map(lambda leaf: jnp.ones(leaf.shape[:1], bool), self.initial_carry), by_row
        )

    def all_replaced(
        self, carry: Any, first: jax.Array, count: int, matters: Callable[[Any], bool]
    ) -> jax.Array:
        """Whether a reset replaces the carry of all rows, at each of some steps: bool `[count]`.

        Leaves for which `matters` is False need no initial value. The steps are first, …,
        first + count − 1; beyond the stream, its last one. Where rows are split over devices, this
        is a sum over them, so call it outside of loops.
        """
        if self.stream.resets is None or any(map(matters, _tree.kept(self.initial_carry, carry))):
            return jnp.zeros(count, bool)
        steps = first + jnp.arange(count, dtype=jnp.int32)
        resets = _tree.gather(jnp.asarray(self.stream.resets), steps).astype(bool)
        of_device = jnp.all(resets.reshape(count, -1), axis=1)
        if not self.axes:
            return of_device
        return lax.pmin(of_device.astype(jnp.int32), self.axes).astype(bool)

    def _replace_at_reset(self, t: jax.Array, new: Any, old: Any) -> Any:
        if self.stream.resets is None:
            return old
        return _tree.replace(jnp.asarray(_tree.index(self.stream.resets, t), bool), new, old)

    def run(self, params: Any, carry: Any, t: jax.Array) -> tuple[Any, Any]:
        """(the carry after step t, its y), from the carry before it or, at a reset, the initial."""
        return self.cell(params, self.enter(carry, t), self.x(t))

    def loss(self, params: Any, y: Any, t: jax.Array) -> tuple[jax.Array, Counted]:
        """(the losses of step t summed with the weights of the mask, what is counted with them)."""
        valid = jnp.ones((), bool)
        if self.stream.mask is not None:
            valid = jnp.asarray(_tree.index(self.stream.mask, t))
        y, target, valid = _tree.repeat((y, _tree.index(self.stream.targets, t), valid), 1)
        is_masked = self.stream.mask is not None
        return loss_and_count(self.loss_fn, params, y, target, valid, is_masked=is_masked)

    def at_most(self, count: int) -> int:
        """A trip count: `count`, or the number of steps of the stream if that is smaller."""
        return min(count, self.stream.num_steps)

    def differentiable(self, rest: Any, t: jax.Array) -> Callable[..., Any]:
        """Returns `step(params, floats) -> ((floats, loss), (rest, counted))`, for `jax.vjp`.

        It is step t; `floats` are the differentiable leaves of the carry, `rest` are the others.
        """

        def step(params: Any, floats: Any) -> tuple[Any, Any]:
            carry, y = self.run(params, _tree.combine(floats, rest), t)
            loss, counted = self.loss(params, y, t)
            floats, new_rest = _tree.partition(carry)
            return (floats, loss), (new_rest, counted)

        return step


class Advance(NamedTuple):
    """What `advance` returns: the sums over the new steps, and the state after them."""

    grads: Any  # like params, perhaps wider
    carry: Any
    inner_state: Any
    loss_sum: jax.Array
    counted: Counted
    extra: dict[str, jax.Array] = {}  # noqa: RUF012  # of the estimator; read, never written
    max_compensation: jax.Array | None = None  # None: 1, as the next
    max_weight: jax.Array | None = None


def before_steps(
    steps: Steps, params: Any, grads: Any, carry: Any, inner_state: Any = ()
) -> Advance:
    """An `Advance` of no steps, to add steps to."""
    nothing = nothing_counted(steps.cell, steps.loss_fn, params, carry, steps.stream)
    no_loss = jnp.zeros_like(nothing.num_losses, dtype=jnp.result_type(float))
    return Advance(grads, carry, inner_state, no_loss, nothing)


def stepwise(
    cell: Cell,
    loss_fn: LossFn,
    update_every: int | Callable[[Any], jax.Array],
    begin: Callable[[Any, Any], Any],
    advance: Callable[..., Advance],
    normalizer: float,
    *,
    resets_at_end: bool = True,
    plan: Plan | None = None,
    critic: Callable[[Any, Any], Any] | None = None,
    undivided: str | None = None,
) -> GradientEstimator:
    """Builds an estimator that takes the next `update_every` steps at each call.

    Args:
      update_every: steps per estimate, or a function from the inner state to that number. Fewer
        may be left at the end of the stream.
      begin: `begin(params, carry) -> inner_state`, at the beginning of a stream.
      advance: `advance(steps, params, state, end, rng_key) -> Advance`, for the steps
        state.position, …, end − 1 of the stream, here counted from the beginning of its arrays; the
        key is for this estimate alone.
      resets_at_end: whether `begin` makes the inner state anew where another pass begins.
      plan: as in `ChunkedEstimator`; None for a `GradientEstimator`.
      critic: of `artbp.unbiased_tbptt`, whose params are in use.
      undivided: a clause that says why rows cannot be split over devices; None if the gradients of
        the rows add up to that of all rows.
    """
    check_positive(normalizer=normalizer)
    normalizer = as_divisor(normalizer)

    def init(
        params: Any, carry: Any, *, rng_key: jax.Array, initial_carry: Any = None
    ) -> EstimatorState:
        check_function(cell=cell, loss_fn=loss_fn)
        check_params(params)
        inner_state = begin(_tree.as_arrays(params), as_carry(carry))
        return start(params, carry, rng_key, initial_carry, inner_state=inner_state)

    @jax.jit
    def run(params: Any, state: EstimatorState, stream: Stream) -> Result:
        axes, given = _devices.axes_of_rows(params, (state.carry, stream)), params
        if axes and undivided is not None:
            raise ValueError(
                f"The rows are split over the mesh axis {', '.join(axes)}, but {undivided}. "
                f"Expected an estimator whose gradient is the sum of those of the rows: {BY_ROW}. "
                "Use one of these, or one device."
            )
        params = _devices.on_each(params, axes)
        x, target = _tree.index((stream.xs, stream.targets), 0)
        y = check_step(cell, loss_fn, params, state.carry, x, target)
        check_losses_by_row(loss_fn, params, y, target, stream)
        warn_of_unused_params(cell, loss_fn, params, state.carry, x, target, critic)
        count = update_every(state.inner_state) if callable(update_every) else update_every
        num_new = jnp.asarray(stream.num_new, jnp.int32)
        position, is_beyond = clip_position(state.position, num_new)
        state = state._replace(position=stream.history + position)
        last = stream.history + num_new
        end = jnp.minimum(state.position + count, last)
        steps = Steps(cell, loss_fn, stream, state.initial_carry, given, axes)
        key = jax.random.fold_in(state.rng_key, state.num_estimates)
        result = advance(steps, params, state, end, key)
        end_of_stream = end == last
        sums = result.grads, result.loss_sum, result.counted
        grads, loss_sum, counted = _devices.total(sums, axes)
        grads = _tree.astype(jax.tree.map(lambda grad: grad / normalizer, grads), params)
        grads = _tree.nan_where(is_beyond, grads)
        carry, inner_state = result.carry, result.inner_state
        if stream.ends:
            carry = _tree.replace(end_of_stream, state.first_carry, carry)
            if resets_at_end:
                fresh = begin(given, carry)
                inner_state = _tree.select(end_of_stream, fresh, inner_state)
        one = jnp.ones((), jnp.result_type(float))
        info = EstimatorInfo(
            loss_sum=_tree.nan_where(is_beyond, loss_sum),
            num_losses=counted.num_losses,
            length=end - state.position,
            max_compensation=one if result.max_compensation is None else result.max_compensation,
            max_weight=one if result.max_weight is None else result.max_weight,
            end_of_stream=end_of_stream,
            extra=join_extra(result.extra, counted.extra),
        )
        state = state._replace(
            position=jnp.where(end_of_stream, jnp.zeros_like(end), end - stream.history),
            num_estimates=state.num_estimates + jnp.ones_like(state.num_estimates),
            num_steps=state.num_steps + info.length,
            carry=carry,
            inner_state=inner_state,
        )
        return grads, state, info

    def estimate(params: Any, state: EstimatorState, stream: Stream) -> Result:
        check_params(params)
        check_state(state)
        check_one_run(state)
        check_not_differentiated(params, state, stream)
        check_stream(stream)
        check_chunk(stream, plan)
        check_resets(state.initial_carry, stream.resets)
        check_position(state, stream)
        return run(_tree.as_arrays(params), state, stream)

    return make_estimator(init, estimate, plan)


def for_steps(
    count: Any,
    first: jax.Array,
    end: jax.Array,
    body: Callable[[jax.Array, jax.Array, Any], Any],
    loop: Any,
) -> Any:
    """loop = body(t, True, loop) for t = first, …, end − 1.

    `count` ≥ end − first is the trip count. Where it is static, `jax.vmap` adds no select over the
    loop state. In iterations beyond the last step, `body` is called with a step that it has been
    called with before and with False; it must then return `loop` unchanged.
    """

    def one(j: jax.Array, loop: Any) -> Any:
        t = first + j
        return body(jnp.minimum(t, end - 1), t < end, loop)

    return lax.fori_loop(0, count, one, loop)
