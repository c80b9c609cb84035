"""Streams from a data loader, for sequences that do not fit into memory.

In this module a chunk is a loader chunk: consecutive steps of one sequence, any number of them, as
a data loader yields them. A chunk of a kernel (`artbp.unrolls.chunk`) is something else.
"""

import collections
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp._checks import check_positive
from artbp.estimators.base import (
    NEEDS_WHOLE_SEQUENCE,
    ChunkedEstimator,
    EstimatorState,
    GradientEstimator,
    Plan,
    check_estimator,
    check_one_run,
    check_state,
    draw_ahead,
)
from artbp.stream import Stream
from artbp.unrolls.checks import check_stream

# Lengths that are drawn in one call.
_AHEAD = 256
# The longest random segment, in steps, behind which a sequence may go on. A stream holds a whole
# segment, and a law whose hazard vanishes may draw one that never ends.
_LONGEST = 2**20


def stream_chunks(
    chunks: Iterable[Any],
    estimator: GradientEstimator,
    state: EstimatorState,
    *,
    num_steps: int,
    prefetch: int = 2,
) -> Iterator[Stream]:
    """Turns one sequence, which a data loader yields chunk by chunk, into streams for an estimator.

    ::

        for stream in artbp.stream_chunks(loader, estimator, state, num_steps=1000):
            end_of_stream = False
            while not end_of_stream:
                grads, state, info = estimate(params, state, stream)
                params = ...
                end_of_stream = info.end_of_stream

    The estimates are the same as with the whole sequence in one `Stream`. (XLA may round in another
    way where the last window is shorter.) Each stream ends where a segment or window ends. This is
    known in advance, because segments and windows never depend on data. A stream begins with the
    older steps that a look-back may read (`Stream.history`). Two exceptions. If a look-back of
    `unbiased_tbptt` needs steps before these, the gradient is NaN; see its `stored_carries`. And
    where a row counts at no step of a chunk, its inputs that are not finite are replaced by 0
    (`Stream.mask`); in one `Stream`, only in rows that count nowhere.

    All streams but the last have the same shapes. So the estimator is compiled twice: for these,
    and for the last one, which has `ends=True` and may be shorter. A random segment that is longer
    than `num_steps` gets a longer stream, for which the estimator is compiled again. A segment must
    fit into memory: one that is longer than `num_steps` and has 2²⁰ steps or more is refused,
    unless the sequence ends within it.

    The first stream comes when `prefetch` + 1 streams have been read; later chunks are read when
    they are needed. The host holds about one stream and one chunk at a time. The device holds up to
    `prefetch` + 2 streams: the one in use, `prefetch` ahead, and the next one while it is copied.

    Args:
      chunks: an iterable of consecutive pieces of one sequence, each a `Stream` or a pair
        `(xs, targets)`. Arrays are `[k, ...]`, time first, with any k ≥ 1: NumPy arrays, or what
        `numpy.asarray` takes, such as slices of a memory map or CPU tensors of torch. All chunks
        have the same fields. xs is needed. Typed JAX keys cannot be part of a chunk.
      estimator: a `ChunkedEstimator`, such as that of `tbptt`, `artbp`, `unbiased_tbptt` or `rtrl`.
      state: the state of the estimator at the beginning of the sequence. Its key and its count of
        estimates decide where segments end.
      num_steps: new time steps of a stream, without the history: rounded up to whole windows. Where
        segments are random, the most that are run, and the size of the arrays.
      prefetch: the number of streams that are put on the device ahead of use, 1 or more.

    Yields:
      Streams on JAX's default device. The last one has `ends=True`, the others `ends=False`.

    Raises:
      TypeError: chunks that are no iterable, or one `Stream`; no `GradientEstimator`; no
        `EstimatorState`.
      ValueError: an estimator that needs the whole sequence; a state in the middle of a sequence,
        or of several runs; num_steps or prefetch that is no integer ≥ 1; no steps; chunks with
        different fields; a random segment that is too long.
    """
    check_estimator(estimator)
    check_state(state)
    if isinstance(chunks, Stream) or not _is_iterable(chunks):
        raise TypeError(
            f"chunks is of type {type(chunks).__name__}; expected an iterable of chunks, each a "
            "Stream or a pair (xs, targets). Put a single one into a list."
        )
    if not isinstance(estimator, ChunkedEstimator):
        raise ValueError(NEEDS_WHOLE_SEQUENCE)
    check_positive(num_steps=num_steps, prefetch=prefetch, integer=True)
    check_one_run(
        state, "Where estimates take a fixed number of steps, its streams serve all runs."
    )
    if int(state.position):
        raise ValueError(
            f"The state stands at step {int(state.position)} of a stream. Begin a sequence with a "
            "state from init, or with that behind the last step of a stream."
        )
    # Copied now, because the caller may donate the state before the first stream is read.
    first, rng_key = int(state.num_estimates), jnp.copy(state.rng_key)
    streams = _streams(_Reader(chunks), estimator.plan, rng_key, first, num_steps)
    return _prefetched(streams, prefetch)


def _prefetched(streams: Iterator[Stream], count: int) -> Iterator[Stream]:
    """Puts streams on the device ahead of use, so that transfers overlap with the computation."""
    queue: collections.deque[Stream] = collections.deque()
    for stream in streams:
        queue.append(jax.device_put(stream))
        if len(queue) > count:
            yield queue.popleft()
    yield from queue


class _Reader:
    """Reads chunks when their steps are needed.

    Attributes:
      steps: a `Stream` of NumPy arrays, the steps that have been read and not been dropped. None
        before the first chunk.
    """

    def __init__(self, chunks: Iterable[Any]):
        self._chunks = enumerate(chunks)
        self.steps: Any = None

    def __len__(self) -> int:
        return 0 if self.steps is None else self.steps.num_steps

    def fill(self, count: int) -> bool:
        """Reads until it holds `count` steps. Returns False if the sequence ends before that."""
        read, total = [] if self.steps is None else [self.steps], len(self)
        while total < count:
            try:
                read.append(_as_stream(*next(self._chunks)))
            except StopIteration:
                break
            total += read[-1].num_steps
        if len(read) > 1 or (self.steps is None and read):
            try:
                self.steps = jax.tree.map(
                    lambda *leaves: np.concatenate(leaves), *map(_fields, read)
                )
                self.steps = Stream(*self.steps)
            except ValueError as error:
                raise ValueError(
                    "The chunks differ in their fields or in the shapes of a step. Expected chunks "
                    f"of one sequence, each with the same arrays [k, ...]. ({error})"
                ) from None
        return total >= count

    def take(self, first: int, count: int) -> tuple[Any, ...]:
        """The fields of `count` steps from `first` on.

        Indices beyond either end give the first or the last step.
        """
        index = np.clip(np.arange(first, first + count), 0, len(self) - 1)
        return jax.tree.map(lambda leaf: leaf[index], _fields(self.steps))

    def drop(self, count: int) -> None:
        """Drops the first steps."""
        if count:
            self.steps = Stream(
                *jax.tree.map(lambda leaf: leaf[count:].copy(), _fields(self.steps))
            )


def _fields(stream: Stream) -> tuple[Any, ...]:
    return stream.xs, stream.targets, stream.resets, stream.mask


def _as_stream(number: int, chunk: Any) -> Stream:
    """Chunk `number` of the loader as a `Stream` of NumPy arrays."""
    if isinstance(chunk, Stream):
        if chunk.history or chunk.stop is not None or not chunk.ends:
            raise ValueError(
                "A chunk of the loader is a Stream with history, stop or ends=False; expected its "
                "steps alone: stream_chunks adds these."
            )
        fields = _fields(chunk)
    elif isinstance(chunk, (tuple, list)) and len(chunk) == 2:
        fields = tuple(chunk)
    else:
        raise ValueError(
            f"A chunk of the loader is {type(chunk).__name__}; expected a Stream or a pair (xs, "
            "targets), where targets may be None."
        )
    fields = jax.tree.map(np.asarray, fields)
    if any(leaf.shape[:1] == (0,) for leaf in jax.tree.leaves(fields)):
        raise ValueError(
            f"Chunk {number} of the loader (the first is 0) has no steps; expected arrays [k, ...] "
            "with k ≥ 1. Skip empty chunks in the loader."
        )
    stream = Stream(*fields)
    check_stream(stream)
    return stream


def _streams(
    reader: _Reader, plan: Plan, rng_key: jax.Array, first: int, num_steps: int
) -> Iterator[Stream]:
    if not reader.fill(1):
        raise ValueError(
            "chunks yields nothing; expected at least one chunk. Pass a new iterator: a generator "
            "can be read only once."
        )
    if isinstance(plan.lengths, int):
        yield from _windows(reader, plan.lengths, plan.history, num_steps)
    else:
        yield from _segments(reader, plan.lengths, rng_key, first, num_steps)


def _windows(reader: _Reader, length: int, history: int, num_steps: int) -> Iterator[Stream]:
    """Streams of whole windows, each with the older steps that a look-back may read before it."""
    size = -(-num_steps // length) * length
    older = 0  # steps at the beginning of the reader that have been run
    while True:
        goes_on = reader.fill(older + size + 1)
        count = size if goes_on else len(reader) - older
        # Before the first step of the sequence, the fields are padding that no look-back reads.
        fields = reader.take(older - history, history + count)
        yield Stream(*fields, ends=not goes_on, history=history)
        if not goes_on:
            return
        older += count
        reader.drop(max(0, older - history))
        older = min(older, history)


def _segments(
    reader: _Reader, length_of: Any, rng_key: jax.Array, first: int, num_steps: int
) -> Iterator[Stream]:
    """Streams of whole segments, padded to `num_steps` with steps that are not run."""
    limit = max(_LONGEST, num_steps + 1)

    @jax.jit
    def draw(first: Any) -> jax.Array:
        return draw_ahead(lambda n: length_of(rng_key, n, limit), first, _AHEAD)

    n, lengths = first, collections.deque[int]()
    while True:
        total = last = 0
        while True:  # as many whole segments as fit; at least one
            if not lengths:
                lengths.extend(np.asarray(draw(np.int32(n))).tolist())
                n += _AHEAD
            if total and total + lengths[0] > num_steps:
                break
            last = lengths.popleft()
            total += last
        goes_on = reader.fill(total + 1)
        if goes_on and last >= limit:
            raise ValueError(
                f"A random segment has {limit} steps or more, and a stream holds whole segments. "
                "Expected a law whose hazard does not vanish, such as a geometric law."
            )
        stop = total if goes_on else len(reader)
        size = -(-stop // num_steps) * num_steps
        fields = reader.take(0, size)
        yield Stream(*fields, ends=not goes_on, stop=np.int32(stop))
        if not goes_on:
            return
        reader.drop(stop)


def _is_iterable(chunks: Any) -> bool:
    """Whether a for loop takes it, also by `__getitem__` alone, as loaders often do."""
    try:
        iter(chunks)
    except TypeError:
        return False
    return True
