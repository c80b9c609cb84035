"""Many segments and as many updates per call: a chunk, compiled or driven by the host.

    while num_segments < segments_per_chunk and epoch < epochs_allowed and healthy:
        grads, estimator_state, info = estimate(params, estimator_state, stream)
        healthy = loss, gradient and updated parameters are finite, and loss <= max_loss
        if healthy: params, opt_state = update
        epoch += info.end_of_stream

Both ways have one type, `RunChunk`, and give the same trajectory. `epochs_allowed` is what lets the
host dispatch a chunk before it has seen the last one's records: beyond the end of the epoch that
chunk does nothing, and a chunk after a bad segment does nothing either.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp


class TrainState(NamedTuple):
    """What the next segment needs.

    Attributes:
        params: any pytree.
        opt_state: the optimiser's state.
        estimator_state: position, carry, key and scratch of the gradient estimator.
        epoch: int32 scalar, passes of the stream that are complete.
        healthy: bool scalar, False after a bad segment, whose update was not applied.
    """

    params: Any
    opt_state: Any
    estimator_state: Any
    epoch: jax.Array | np.integer
    healthy: jax.Array


class SegmentRecord(NamedTuple):
    """What a person may want to know of a segment: scalars, or [num_segments] for a chunk."""

    loss_sum: Any
    num_losses: Any
    length: Any
    gradient_norm: Any  # before clipping
    max_compensation: Any
    max_weight: Any
    end_of_stream: Any
    healthy: Any


class Chunk(NamedTuple):
    """The records of a chunk, of which the first num_segments count; see `fetch`.

    Rows [segments_per_chunk] from a compiled chunk, a list of records from a host-driven one.
    """

    records: SegmentRecord | list[SegmentRecord]
    num_segments: Any


RunChunk = Callable[[TrainState, artbp.Stream, int], tuple[TrainState, Chunk]]


def compiled_chunk(
    estimator: artbp.GradientEstimator,
    optimizer: optax.GradientTransformation,
    *,
    segments_per_chunk: int,
    max_loss: float,
) -> RunChunk:
    """A chunk as one program, for estimators whose `estimate` can be traced.

    The state given is donated: its memory, scratch included, is that of the state returned.
    """
    update = _make_update(optimizer, max_loss)

    def run(
        state: TrainState, stream: artbp.Stream, epochs_allowed: jax.Array
    ) -> tuple[TrainState, Chunk]:
        def unfinished(loop: tuple[TrainState, Chunk]) -> jax.Array:
            state, chunk = loop
            allowed = (state.epoch < epochs_allowed) & state.healthy
            return (chunk.num_segments < segments_per_chunk) & allowed

        def step(loop: tuple[TrainState, Chunk]) -> tuple[TrainState, Chunk]:
            state, chunk = loop
            grads, estimator_state, info = estimator.estimate(
                state.params, state.estimator_state, stream
            )
            params, opt_state, record = update(state.params, state.opt_state, grads, info)
            state = TrainState(
                params=params,
                opt_state=opt_state,
                estimator_state=estimator_state,
                epoch=state.epoch + record.end_of_stream.astype(jnp.int32),
                healthy=record.healthy,
            )
            records = jax.tree.map(
                lambda rows, value: rows.at[chunk.num_segments].set(value), chunk.records, record
            )
            return state, Chunk(records, chunk.num_segments + 1)

        empty = Chunk(_empty_records(segments_per_chunk), jnp.zeros((), jnp.int32))
        return jax.lax.while_loop(unfinished, step, (state, empty))

    compiled = jax.jit(run, donate_argnums=0)
    return lambda state, stream, epochs_allowed: compiled(state, stream, np.int32(epochs_allowed))


def host_driven_chunk(
    estimator: artbp.GradientEstimator,
    optimizer: optax.GradientTransformation,
    *,
    segments_per_chunk: int,
    max_loss: float,
) -> RunChunk:
    """A chunk as a Python loop, for policies that plan lengths on the host.

    Only the update is compiled here. The host runs ahead of the device, up to the end of the chunk:
    it knows the lengths, hence the end of the stream, and does not wait to hear whether a segment
    was good. Segments after a bad one run too, but update nothing and do not count.
    """
    update = jax.jit(_make_update(optimizer, max_loss), donate_argnums=(0, 1))

    def run(
        state: TrainState, stream: artbp.Stream, epochs_allowed: int
    ) -> tuple[TrainState, Chunk]:
        records: list[SegmentRecord] = []
        num_segments = np.int32(0)
        while len(records) < segments_per_chunk and state.epoch < epochs_allowed:
            grads, estimator_state, info = estimator.estimate(
                state.params, state.estimator_state, stream
            )
            num_segments += state.healthy
            params, opt_state, record = update(
                state.params, state.opt_state, grads, info, state.healthy
            )
            records.append(record)
            state = TrainState(
                params=params,
                opt_state=opt_state,
                estimator_state=estimator_state,
                # A position planned on the host is a NumPy scalar: looking at it waits for nothing.
                epoch=np.int32(state.epoch + (estimator_state.position == 0)),
                healthy=record.healthy,
            )
        return state, Chunk(records, num_segments)

    return run


def fetch(chunk: Chunk) -> SegmentRecord | None:
    """The filled records on the host, [num_segments] each; None for a chunk without a segment."""
    records, num_segments = jax.device_get(chunk)
    if num_segments == 0:
        return None
    if isinstance(records, list):
        records = jax.tree.map(lambda *values: np.stack(values), *records)
    return jax.tree.map(lambda rows: rows[:num_segments], records)


def _make_update(optimizer: optax.GradientTransformation, max_loss: float) -> Callable:
    # Some optimisers of optax (reduce_on_plateau) want the loss as well.
    optimizer_update = optax.with_extra_args_support(optimizer).update

    def update(
        params: Any, opt_state: Any, grads: Any, info: Any, healthy: Any = True
    ) -> tuple[Any, Any, SegmentRecord]:
        loss = info.loss_sum / jnp.maximum(info.num_losses, 1)
        updates, new_opt_state = optimizer_update(grads, opt_state, params, value=loss)
        new_params = optax.apply_updates(params, updates)
        gradient_norm = optax.global_norm(grads)
        # The parameters too: a finite gradient times a large rate may overflow, and a
        # checkpoint must never hold that.
        healthy &= (
            jnp.isfinite(info.loss_sum)
            & (loss <= max_loss)
            & jnp.isfinite(gradient_norm)
            & jnp.all(
                jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(new_params)])
            )
        )
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(healthy, new, old),
            (new_params, new_opt_state),
            (params, opt_state),
        )
        record = SegmentRecord(
            loss_sum=info.loss_sum,
            num_losses=info.num_losses,
            length=info.length,
            gradient_norm=gradient_norm,
            max_compensation=info.max_compensation,
            max_weight=info.max_weight,
            end_of_stream=info.end_of_stream,
            healthy=healthy,
        )
        return params, opt_state, _with_fixed_dtypes(record)

    return update


# One dtype per field, so that the rows of a chunk can be laid out before the first segment.
_DTYPES = SegmentRecord(float, int, int, float, float, float, bool, bool)


def _with_fixed_dtypes(record: SegmentRecord) -> SegmentRecord:
    return SegmentRecord(*(jnp.asarray(v, dtype) for v, dtype in zip(record, _DTYPES, strict=True)))


def _empty_records(num_segments: int) -> SegmentRecord:
    return SegmentRecord(*(jnp.zeros(num_segments, dtype) for dtype in _DTYPES))
