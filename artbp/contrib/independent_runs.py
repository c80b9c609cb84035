"""Many trainings side by side, each with its own key, params and place in the stream.

Under `jax.vmap`, `estimate` runs its rows in lockstep: each waits for the longest segment among
them. Here each row goes on to its own next segment. A whole training, all segments and updates of
all rows, is one loop in one compiled program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from artbp import _tree
from artbp.contrib.block_schedule import Ring, RowsSegment, begin, make_ring, one_round
from artbp.contrib.runs_block import RowsBlock
from artbp.estimators.base import EstimatorInfo, EstimatorState
from artbp.stream import Stream
from artbp.truncation.base import TruncationLaw, check_law
from artbp.truncation.deterministic import never
from artbp.unrolls.checks import Cell, check_cell, check_params, check_positive, check_resets
from artbp.unrolls.readout import LossFn
from artbp.unrolls.segment import Problem

# Lengths drawn ahead for a row: many at a time, because drawing a few costs a round as much.
_PLAN = 32

# Rounds that carries are kept for, in units of the block size. Half as many blocks, that is
# 4 · block_size² steps, are what a segment may have before a part of it is run a third time.
_KEPT = 8


class IndependentRuns(NamedTuple):
    """Trains many rows; made by `independent_runs`.

    Attributes:
      init: `init(carry, rng_keys) -> state`, with the carry of one row and keys `[R]`: an
        `EstimatorState` of arrays `[R, ...]` without scratch.
      run: `run(params, aux, state, stream) -> (params, aux, state)`. Params and aux are trees of
        arrays `[R, ...]`; the state stands between two segments in every row. To be jitted.
    """

    init: Callable[..., EstimatorState]
    run: Callable[..., tuple[Any, Any, EstimatorState]]


class _Plan(NamedTuple):
    """lengths: int32 `[n, R]`, of segments first, …, first + n − 1; first: int32 `[R]`."""

    first: jax.Array
    lengths: jax.Array


class _Loop(NamedTuple):
    params: Any
    aux: Any
    state: EstimatorState
    running: jax.Array
    plan: _Plan
    segment: RowsSegment
    ring: Ring


def by_run(update: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    """Makes the update of one row an update of all rows, for `independent_runs`.

    Args:
      update: `update(params, aux, grads, info) -> (params, aux)` on one row.
    """
    rows = jax.vmap(update)

    def update_rows(
        params: Any, aux: Any, grads: Any, info: EstimatorInfo, finished: jax.Array
    ) -> tuple[Any, Any]:
        return _tree.select(finished, rows(params, aux, grads, info), (params, aux))

    return update_rows


def independent_runs(
    cell: Cell,
    loss_fn: LossFn,
    law: TruncationLaw,
    update: Callable[..., tuple[Any, Any]],
    running: Callable[[Any, Any], jax.Array],
    *,
    compensate: bool = True,
    normalizer: float = 1.0,
    block_size: int = 16,
    stream_axes: Any = None,
) -> IndependentRuns:
    """Trains rows that each go on to their own next segment. `run` means, for each row by itself:

        while running(params, aux):
            grads, state, info = estimator.estimate(params, state, stream)
            params, aux = update(params, aux, grads, info)

    with `estimator = artbp.artbp(cell, loss_fn, law, ...)`, or `artbp.tbptt` where `law` is
    `truncation.fixed(K)`: the same segments from the same keys, and to round-off the same numbers.
    Rows never mix: one that diverges leaves the others as they are.

    When it pays: many rows of a small model and random lengths. A row is at work in about half of
    the steps (0.45 of them at L0 = 16, α = 4, block_size 16), however many rows there are; in
    lockstep it is mean / longest length, which falls with every row. With fixed lengths lockstep
    wastes nothing. Where one row already fills the machine, rows side by side gain nothing, and
    the steps that wait are a loss.

    Args:
      cell, loss_fn, law, compensate, normalizer: as for `artbp.artbp`.
      update: `update(params, aux, grads, info, finished) -> (params, aux)`, pure, on all rows at
        once. `finished`, bool `[R]`, are the rows whose segment ended in this round; the others
        hold meaningless gradients and must be left as they are. `by_run` makes one from the
        update of a single row, and selects over params and aux; write your own where aux is
        large. `aux` is yours: optimiser state, counters, metrics.
      running: `running(params, aux) -> bool [R]`. A row for which it is False rests, for good:
        it is asked between segments.
      block_size: steps that rows run in a round, then wait for each other: the mean length or a
        little less. Also sets memory: 9 · block_size carries of every row.
      stream_axes: the axes of the stream over rows as in `jax.vmap`'s `in_axes`, for example
        `Stream(0, num_steps=T)` for inputs `[R, T, ...]`. None: all rows share the stream.

    Returns:
      An `IndependentRuns`. Danger: under `jax.vmap`, `run` selects over its buffers in every
      round. Make the mapped axis a part of the rows instead.

    Raises:
      TypeError: law is not a `TruncationLaw`; from `run`: params that are not floats.
      ValueError: a bad option; from `run`: as `estimate` of `artbp.artbp`.

    Source: Tallec & Ollivier, arXiv 1705.08209.
    """
    check_law(law)
    check_positive(normalizer=normalizer)
    check_positive(block_size=block_size, integer=True)
    problem = Problem(cell, loss_fn, law.compensation if compensate else never().compensation)

    def init(carry: Any, rng_keys: jax.Array) -> EstimatorState:
        num_rows = rng_keys.shape[0]
        carry = _tree.repeat(_tree.as_arrays(carry), num_rows)
        zero = jnp.zeros((num_rows,), jnp.int32)
        return EstimatorState(zero, zero, carry, carry, rng_keys, scratch=())

    def begin_next(
        params: Any, state: EstimatorState, plan: _Plan, ring: Ring, num_steps: int
    ) -> RowsSegment:
        rows = jnp.arange(state.position.shape[0], dtype=jnp.int32)
        # Clipped, because a row at rest may have come to the end of its plan.
        length = plan.lengths.at[state.num_estimates - plan.first, rows].get(mode="clip")
        length = jnp.minimum(length, num_steps - state.position)
        return begin(params, state.carry, length, ring, block_size)

    def end(
        loop: _Loop, segment: RowsSegment, finished: jax.Array, num_steps: int
    ) -> tuple[Any, Any, EstimatorState]:
        """Updates the rows whose segment is finished, and moves them on to the next one."""
        state = loop.state
        position = (state.position + segment.length) % np.int32(num_steps)
        end_of_stream = position == 0
        info = EstimatorInfo(
            loss_sum=segment.loss_sum,
            num_losses=segment.num_losses,
            length=segment.length,
            max_compensation=segment.max_compensation,
            max_weight=segment.max_weight,
            end_of_stream=end_of_stream,
        )
        grads = jax.tree.map(
            lambda grad, x: (grad.astype(x.dtype) / normalizer).astype(x.dtype),
            segment.grads,
            loop.params,
        )
        params, aux = update(loop.params, loop.aux, grads, info, finished)
        next_carry = _tree.select(end_of_stream, state.initial_carry, segment.leaving)
        state = state._replace(
            position=jnp.where(finished, position, state.position),
            num_estimates=state.num_estimates + finished.astype(jnp.int32),
            carry=_tree.select(finished, next_carry, state.carry),
        )
        return params, aux, state

    def run(
        params: Any, aux: Any, state: EstimatorState, stream: Stream
    ) -> tuple[Any, Any, EstimatorState]:
        check_params(params)
        params, aux = _tree.as_arrays((params, aux))
        _check_rows(cell, stream_axes, params, state.carry, stream)
        num_steps = stream.num_steps

        def round_of_all(loop: _Loop) -> _Loop:
            block = RowsBlock(
                problem,
                stream,
                stream_axes,
                loop.params,
                loop.state.initial_carry,
                block_size,
                start=jnp.asarray(loop.state.position),
                num_steps=loop.segment.length,
            )
            segment, finished, ring = one_round(
                block, loop.segment, loop.state.carry, loop.running, loop.ring
            )
            params, aux, state = end(loop, segment, finished, num_steps)
            still_running = running(params, aux)
            at_end_of_plan = still_running & (state.num_estimates - loop.plan.first >= _PLAN)
            plan = lax.cond(jnp.any(at_end_of_plan), lambda: _draw(law, state), lambda: loop.plan)
            fresh = begin_next(params, state, plan, ring, num_steps)
            segment = _tree.select(finished, fresh, segment)
            return _Loop(params, aux, state, still_running, plan, segment, ring)

        plan, ring = _draw(law, state), make_ring(state.carry, _KEPT * block_size)
        segment = begin_next(params, state, plan, ring, num_steps)
        loop = _Loop(params, aux, state, running(params, aux), plan, segment, ring)
        loop = lax.while_loop(lambda loop: jnp.any(loop.running), round_of_all, loop)
        return loop.params, loop.aux, loop.state

    return IndependentRuns(init, run)


def _draw(law: TruncationLaw, state: EstimatorState) -> _Plan:
    """Draws the next lengths of every row, exactly as `artbp.artbp` does."""
    first = jnp.asarray(state.num_estimates)
    segments = jnp.arange(_PLAN, dtype=jnp.int32)[:, None] + first[None, :]
    # One axis: XLA's loops over two are slower.
    keys = jnp.concatenate([state.rng_key] * _PLAN)
    lengths = jax.vmap(law.length_of)(keys, jnp.ravel(segments))
    return _Plan(first, jnp.reshape(lengths, segments.shape))


def _check_rows(cell: Cell, stream_axes: Any, params: Any, carry: Any, stream: Stream) -> None:
    """What `estimate` checks, on the shapes of one row."""

    def check(params: Any, carry: Any, stream: Stream) -> None:
        stream.check_lengths()
        check_resets(carry, stream.resets)
        check_cell(cell, params, carry, _tree.index(stream.xs, 0))

    jax.eval_shape(jax.vmap(check, in_axes=(0, 0, stream_axes)), params, carry, stream)
