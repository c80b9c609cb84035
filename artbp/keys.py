"""Random keys for the cell, one for each time step, new in each pass."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp._checks import check_key
from artbp.estimators.base import EstimatorState, check_one_run, check_state
from artbp.stream import Stream
from artbp.unrolls.checks import check_stream

# Folded into the key first, so that no key of a step is one with which an estimator draws.
_DOMAIN = 0x6B657973


def with_keys(stream: Stream, rng_key: jax.Array, state: EstimatorState) -> Stream:
    """Adds a key for each time step to the inputs of a stream, for dropout and other noise::

        def cell(params, carry, x):
            x, key = x
            ...

        def update(params, state, stream, rng_key):
            stream = artbp.with_keys(stream, rng_key, state)
            grads, state, info = estimator.estimate(params, state, stream)

    xs becomes (xs, keys), where the key of a step is made from rng_key and from the number of time
    steps that were run before it since `init`. So no two steps share a key, in this pass or
    another, and neither do the streams of `artbp.stream_chunks`. Within a pass, a step that is run
    again has the same key: in the backward pass, in a later estimate, and in a look-back.

    Call it before each estimate, inside the jitted update, always with the same rng_key. It makes
    the keys of the whole stream each time, which is cheap next to an estimate unless the stream is
    much longer than a segment; `artbp.stream_chunks` then makes shorter streams. All rows of a
    batch get the same key: a cell that draws an array `[B, ...]` from it has its own noise in each
    row.

    `artbp.evaluate` takes a cell without noise, and the stream without keys.

    Args:
      stream: as for `estimate`.
      rng_key: a key, typed or not; the keys of the steps are typed. It may be the one that `init`
        was given.
      state: the state that `estimate` is given.

    Raises:
      TypeError: no `Stream`, no key, or no `EstimatorState`.
      ValueError: several keys; a state of several runs, which have several positions. Call it in
        `jax.vmap`.
    """
    check_stream(stream)
    check_key(rng_key)
    check_state(state)
    check_one_run(state)
    before = jnp.asarray(state.num_steps) - jnp.asarray(state.position)
    steps = before + jnp.arange(stream.num_steps, dtype=jnp.int32) - jnp.int32(stream.history)
    if not _tree.is_key(rng_key):
        rng_key = jax.random.wrap_key_data(rng_key)  # the adapters know typed keys by their type
    of_stream = jax.random.fold_in(rng_key, _DOMAIN)
    keys: Any = jax.vmap(jax.random.fold_in, (None, 0))(of_stream, steps.astype(jnp.uint32))
    return dataclasses.replace(stream, xs=(stream.xs, keys))
