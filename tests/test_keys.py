"""`with_keys`: a key for each time step, new in each pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import make_problem, relative_error

import artbp

NUM_STEPS, KEY = 11, jax.random.key(5)


def noisy():
    """An RNN with dropout on its inputs; each row has its own mask."""
    problem = make_problem("rnn", NUM_STEPS)

    def cell(params, carry, x):
        x, key = x
        mask = jax.random.bernoulli(key, 0.5, x.shape)
        return problem.cell(params, carry, jnp.where(mask, 2 * x, 0))

    return problem._replace(cell=cell)


def gradient_of_pass(problem, number):
    """(losses, gradient) of a pass by a plain loop; the keys are folded in by hand."""

    def loss(params):
        carry, total, stream = problem.carry, 0.0, problem.stream
        for t in range(NUM_STEPS):
            key = jax.random.fold_in(jax.random.fold_in(KEY, 0x6B657973), number * NUM_STEPS + t)
            carry, y = problem.cell(params, carry, (stream.xs[t], key))
            total += jnp.sum(problem.loss_fn(params, y, stream.targets[t]))
        return total

    return jax.value_and_grad(loss)(problem.params)


@pytest.mark.parametrize("name", ["bptt", "unbiased_tbptt", "rtrl"])
def test_two_passes_with_keys_of_their_own(name, float64):
    """Each pass is BPTT with its own noise; forward, backward and look-back see the same keys."""
    problem, never = noisy(), artbp.truncation.never()
    functions = problem.cell, problem.loss_fn
    estimator = {
        "bptt": lambda: artbp.bptt(*functions, block_size=4),
        "unbiased_tbptt": lambda: artbp.unbiased_tbptt(
            *functions, never, truncation_length=4, mode="reforward"
        ),
        "rtrl": lambda: artbp.rtrl(*functions, update_every=4),
    }[name]()

    @jax.jit
    def step(params, state, stream):
        return estimator.estimate(params, state, artbp.with_keys(stream, KEY, state))

    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    losses = []
    for number in range(2):
        total, loss_sum, end_of_stream = jax.tree.map(jnp.zeros_like, problem.params), 0.0, False
        while not end_of_stream:
            grads, state, info = step(problem.params, state, problem.stream)
            total = jax.tree.map(jnp.add, total, grads)
            loss_sum, end_of_stream = loss_sum + info.loss_sum, info.end_of_stream
        expected, gradient = gradient_of_pass(problem, number)
        np.testing.assert_allclose(loss_sum, expected, rtol=1e-12)
        assert relative_error(total, gradient) < 1e-12
        losses.append(float(loss_sum))
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.parametrize("name", ["artbp", "unbiased_tbptt"])
def test_a_sequence_in_loader_chunks_has_the_same_keys(name, float64):
    problem, law = noisy(), artbp.truncation.geometric(2)
    functions = problem.cell, problem.loss_fn
    options = {"truncation_length": 2, "stored_carries": 4} if name == "unbiased_tbptt" else {}
    estimator = getattr(artbp, name)(*functions, law, **options)
    loader = [(np.asarray(problem.stream.xs), np.asarray(problem.stream.targets))]

    def losses(streams, state):
        for stream in streams:
            end_of_stream = False
            while not end_of_stream:
                keyed = artbp.with_keys(stream, KEY, state)
                _, state, info = estimator.estimate(problem.params, state, keyed)
                yield float(info.loss_sum)
                end_of_stream = info.end_of_stream

    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    chunks = artbp.stream_chunks(loader, estimator, state, num_steps=4)
    found, expected = list(losses(chunks, state)), list(losses([problem.stream], state))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_keys_of_steps_are_none_of_those_that_draw_boundaries():
    """Otherwise boundaries would depend on the noise, which biases the gradient."""
    problem = noisy()
    estimator = artbp.artbp(problem.cell, problem.loss_fn, artbp.truncation.geometric(2))
    state = estimator.init(problem.params, problem.carry, rng_key=KEY)
    _, keys = artbp.with_keys(problem.stream, KEY, state).xs
    drawing = [jax.random.fold_in(state.rng_key, n) for n in range(NUM_STEPS)]
    of_steps = {tuple(row.tolist()) for row in jax.random.key_data(keys)}
    assert len(of_steps) == NUM_STEPS
    assert not of_steps & {tuple(jax.random.key_data(key).tolist()) for key in drawing}


def test_a_state_of_several_runs_is_refused():
    problem = noisy()
    estimator = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=4)
    state = estimator.init(problem.params, problem.carry, rng_key=KEY)
    several = state._replace(position=jnp.zeros(NUM_STEPS, jnp.int32))
    with pytest.raises(ValueError, match=r"several runs.*jax\.vmap"):
        artbp.with_keys(problem.stream, KEY, several)
