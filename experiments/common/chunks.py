"""A chunk: many segments, each with its update, in one call. Compiled, or driven by the host.

    while num_segments < segments_per_chunk and epoch < epochs_allowed and healthy:
        grads, estimator_state, info = estimate(params, estimator_state, stream)
        healthy = loss, gradient and updated params are finite, and loss <= max_loss
        if healthy: params, opt_state = update
        elif skip: estimator_state = begin_anew(estimator_state); healthy = True
        epoch += info.end_of_stream

Both ways give the same trajectory. `epochs_allowed` lets the host dispatch a chunk before it has
seen the records of the last one: a chunk beyond the end of the epoch does nothing, and neither does
a chunk after a bad segment, unless bad segments are skipped.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common.divergence import all_finite, begin_anew


class TrainState(NamedTuple):
    """What the next segment needs."""

    params: Any
    opt_state: Any
    estimator_state: Any  # position, carry, key and scratch
    epoch: jax.Array | np.integer  # int32 scalar, complete passes of the stream
    healthy: jax.Array  # bool scalar, False after a bad segment, unless it was skipped


class SegmentRecord(NamedTuple):
    """What a person may want to know of a segment: scalars, or [num_segments] for a chunk."""

    loss_sum: Any
    num_losses: Any
    length: Any
    gradient_norm: Any  # before clipping
    max_compensation: Any
    max_weight: Any
    end_of_stream: Any
    healthy: Any  # False for a bad segment, whose update was not applied
    look_back: Any = ()  # in windows; 0 for an estimator without look-backs


# One dtype per field, so that the records of a chunk can be laid out before the first segment.
_DTYPES = SegmentRecord(float, int, int, float, float, float, bool, bool, int)

# (records, number of segments that count): arrays [segments_per_chunk] from a compiled chunk, a
# list of records from the host. `fetch` reads both.
Chunk = tuple[SegmentRecord | list[SegmentRecord], Any]
RunChunk = Callable[[TrainState, artbp.Stream, int], tuple[TrainState, Chunk]]


def compiled_chunk(
    estimator: artbp.GradientEstimator,
    optimizer: optax.GradientTransformation,
    segments_per_chunk: int,
    max_loss: float,
    skip: bool = False,
) -> RunChunk:
    """A chunk as one program, for estimators whose `estimate` can be traced.

    The given state is donated: the returned one reuses its memory, scratch included.
    """
    update = _make_update(optimizer, max_loss)

    def run(state: TrainState, stream: artbp.Stream, epochs_allowed: jax.Array) -> Any:
        def unfinished(loop: Any) -> jax.Array:
            state, (_, count) = loop
            return (count < segments_per_chunk) & (state.epoch < epochs_allowed) & state.healthy

        def step(loop: Any) -> Any:
            state, (records, count) = loop
            grads, estimator_state, info = estimator.estimate(
                state.params, state.estimator_state, stream
            )
            params, opt_state, record = update(*state[:2], grads, info, state.healthy)
            epoch, healthy = state.epoch + record.end_of_stream.astype(jnp.int32), record.healthy
            if skip:
                estimator_state = begin_anew(estimator, params, estimator_state, ~healthy)
                healthy = jnp.ones((), bool)
            state = TrainState(params, opt_state, estimator_state, epoch, healthy)
            records = jax.tree.map(lambda rows, one: rows.at[count].set(one), records, record)
            return state, (records, count + 1)

        empty = SegmentRecord(*(jnp.zeros(segments_per_chunk, dtype) for dtype in _DTYPES))
        return jax.lax.while_loop(unfinished, step, (state, (empty, jnp.zeros((), jnp.int32))))

    compiled = jax.jit(run, donate_argnums=0)
    return lambda state, stream, epochs_allowed: compiled(state, stream, np.int32(epochs_allowed))


def host_driven_chunk(
    estimator: artbp.GradientEstimator,
    optimizer: optax.GradientTransformation,
    segments_per_chunk: int,
    max_loss: float,
    skip: bool = False,
) -> RunChunk:
    """A chunk as a Python loop, for policies that plan lengths on the host.

    Only the update is compiled here. The host knows the lengths and hence the end of the stream, so
    it runs ahead of the device. It does not wait to learn whether a segment was good: segments
    after a bad one run too, but update nothing and do not count.
    """
    update = jax.jit(_make_update(optimizer, max_loss), donate_argnums=(0, 1))

    @jax.jit
    def carry_or_anew(params: Any, state: Any, is_bad: Any) -> tuple[Any, Any]:
        state = begin_anew(estimator, params, state, is_bad)
        return state.carry, state.inner_state

    def run(state: TrainState, stream: artbp.Stream, epochs_allowed: int) -> Any:
        records: list[SegmentRecord] = []
        count = np.int32(0)
        while len(records) < segments_per_chunk and state.epoch < epochs_allowed:
            grads, estimator_state, info = estimator.estimate(
                state.params, state.estimator_state, stream
            )
            count += state.healthy
            params, opt_state, record = update(*state[:2], grads, info, state.healthy)
            records.append(record)
            # A position planned on the host is a NumPy scalar: reading it waits for nothing.
            epoch = np.int32(state.epoch + (estimator_state.position == 0))
            healthy = record.healthy
            if skip:
                bare = estimator_state._replace(scratch=())
                carry, inner_state = carry_or_anew(params, bare, ~healthy)
                estimator_state = estimator_state._replace(carry=carry, inner_state=inner_state)
                healthy = jnp.ones((), bool)
            state = TrainState(params, opt_state, estimator_state, epoch, healthy)
        return state, (records, count)

    return run


def fetch(chunk: Chunk) -> SegmentRecord | None:
    """The filled records on the host, [num_segments] each; None for a chunk without a segment."""
    records, count = jax.device_get(chunk)
    if count == 0:
        return None
    if isinstance(records, list):
        records = jax.tree.map(lambda *values: np.stack(values), *records)
    return jax.tree.map(lambda rows: rows[:count], records)


def _make_update(optimizer: optax.GradientTransformation, max_loss: float) -> Callable:
    # Some optimisers of optax (reduce_on_plateau) want the loss as well.
    optimizer_update = optax.with_extra_args_support(optimizer).update

    def update(
        params: Any, opt_state: Any, grads: Any, info: Any, healthy: Any
    ) -> tuple[Any, Any, SegmentRecord]:
        loss = info.loss_sum / jnp.maximum(info.num_losses, 1)
        updates, new_opt_state = optimizer_update(grads, opt_state, params, value=loss)
        new_params = optax.apply_updates(params, updates)
        gradient_norm = optax.tree.norm(grads)
        # The params too: a finite gradient times a large rate may overflow, and a checkpoint must
        # never hold that.
        finite = all_finite((info.loss_sum, gradient_norm, new_params))
        healthy = healthy & finite & (loss <= max_loss)
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(healthy, new, old),
            (new_params, new_opt_state),
            (params, opt_state),
        )
        found = info._asdict() | {"gradient_norm": gradient_norm, "healthy": healthy}
        found["look_back"] = info.extra.get("look_back", 0)
        record = (jnp.asarray(found[field], getattr(_DTYPES, field)) for field in _DTYPES._fields)
        return params, opt_state, SegmentRecord(*record)

    return update
