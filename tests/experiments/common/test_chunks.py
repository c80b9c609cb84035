"""When a chunk stops, and that it applies no update of a bad segment."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import artbp
from experiments.common import chunks

MAKERS = [chunks.compiled_chunk, chunks.host_driven_chunk]
STEPS, LENGTH = 50, 10


def scale(params, carry, x):
    return carry, params * x


def make_chunk(make, optimizer, segments_per_chunk, max_loss=np.inf, cell=scale):
    """A readout y = params · x of a cell without memory; the gradient is the sum of x."""
    estimator = artbp.tbptt(
        cell,
        lambda params, y, target: y,
        truncation_length=LENGTH,
        block_size=16,
    )
    params = jnp.asarray(1.0, jnp.float32)  # not weak: see loop._initial_state
    state = chunks.TrainState(
        params=params,
        opt_state=optimizer.init(params),
        estimator_state=estimator.init(params, jnp.zeros(1), rng_key=jax.random.key(0)),
        epoch=jnp.zeros((), jnp.int32),
        healthy=jnp.ones((), bool),
    )
    run = make(estimator, optimizer, segments_per_chunk=segments_per_chunk, max_loss=max_loss)
    return run, state


def stream_of(xs):
    return artbp.Stream(xs, jnp.zeros_like(xs))


@pytest.mark.parametrize("make", MAKERS)
def test_stops_at_the_end_of_the_epoch_until_the_next_is_allowed(make):
    stream = stream_of(jnp.ones((STEPS, 1)))
    run, state = make_chunk(make, optax.sgd(0.001), segments_per_chunk=3)
    counts = []
    for epochs_allowed in (1, 1, 1, 1, 2, 2):
        state, chunk = run(state, stream, epochs_allowed)
        records = chunks.fetch(chunk)
        counts.append(0 if records is None else len(records.length))
    assert counts == [3, 2, 0, 0, 3, 2]
    assert int(state.epoch) == 2
    np.testing.assert_allclose(state.params, 1.0 - 0.001 * 2 * STEPS, rtol=1e-5)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("bad", [np.nan, 1e6])
def test_no_update_of_a_bad_segment_is_applied_and_nothing_runs_after_it(make, bad):
    stream = stream_of(jnp.ones((STEPS, 1)).at[25].set(bad))
    optimizer = optax.adam(0.01)
    run, state = make_chunk(make, optimizer, segments_per_chunk=2)
    before, _ = run(state, stream, 1)
    expected = jax.device_get((before.params, before.opt_state))

    run, state = make_chunk(make, optimizer, segments_per_chunk=5, max_loss=1e3)
    state, chunk = run(state, stream, 1)
    records = chunks.fetch(chunk)
    assert records is not None
    assert records.healthy.tolist() == [True, True, False]
    assert records.length.tolist() == [LENGTH] * 3
    jax.tree.map(np.testing.assert_array_equal, (state.params, state.opt_state), expected)
    _, chunk = run(state, stream, 2)
    assert chunks.fetch(chunk) is None


@pytest.mark.parametrize("make", MAKERS)
def test_a_finite_gradient_whose_update_overflows_is_bad(make):
    stream = stream_of(jnp.ones((STEPS, 1)))
    optimizer = optax.sgd(lambda count: jnp.where(count < 2, 1e-3, 1e38))
    run, state = make_chunk(make, optimizer, segments_per_chunk=5)
    state, chunk = run(state, stream, 1)
    records = chunks.fetch(chunk)
    assert records is not None
    assert records.healthy.tolist() == [True, True, False]
    assert np.isfinite(records.gradient_norm).all()
    assert np.isfinite(state.params)


def test_compiled_once_for_all_chunks():
    traces = 0

    def counted(params, carry, x):
        nonlocal traces
        traces += 1
        return scale(params, carry, x)

    stream = stream_of(jnp.ones((STEPS, 1)))
    run, state = make_chunk(chunks.compiled_chunk, optax.adam(0.01), 2, cell=counted)
    state, _ = run(state, stream, 1)
    after_first = traces
    for epochs_allowed in (1, 1, 2, 2, 2):
        state, _ = run(state, stream, epochs_allowed)
    assert int(state.epoch) == 2
    assert traces == after_first > 0


def test_optimizers_that_want_the_loss_get_it():
    optimizer = optax.chain(optax.sgd(0.01), optax.contrib.reduce_on_plateau(patience=1))
    run, state = make_chunk(chunks.compiled_chunk, optimizer, segments_per_chunk=5)
    state, chunk = run(state, stream_of(jnp.ones((STEPS, 1))), 1)
    records = chunks.fetch(chunk)
    assert records is not None and records.healthy.all()
