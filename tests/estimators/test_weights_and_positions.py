"""Float masks weight the losses, and a position beyond the stream gives no gradient: every row."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from problems import REGISTRY_ROWS, make_problem, relative_error

import artbp
from artbp import truncation
from artbp.contrib import independent_runs
from artbp.contrib.independent_runs import by_run
from artbp.diagnostics import gradient_report, shadow
from artbp.diagnostics.gate_gradients import gradients_of_gates
from artbp.diagnostics.lag_gradients import unroll_window

NUM_STEPS = 8
LAW = truncation.polynomial(4, 4)
SEGMENTWISE = [name for name, row in artbp.REGISTRY.items() if row.segmentwise]
WEIGHTS = np.random.default_rng(0).choice([0.0, 0.25, 1.0, 3.0], (NUM_STEPS, 2))


def weighted_problem(num_steps=NUM_STEPS):
    """A problem whose loss has a weight of its own, the second part of a target."""
    problem = make_problem("rnn", num_steps)

    def loss_fn(params, y, target):
        return target[1] * problem.loss_fn(params, y, target[0])

    return problem._replace(loss_fn=loss_fn)


def by_mask_and_by_loss(weights, problem):
    """Two streams of the same losses: weighted by the mask, and by the loss function.

    The targets of weight 0 are NaN in the first.
    """
    stream, targets = problem.stream, problem.stream.targets
    weights = jnp.asarray(weights, targets.dtype)
    missing = jnp.where(weights > 0, targets, jnp.nan)
    counts = (weights > 0).astype(targets.dtype)
    return (
        artbp.Stream(stream.xs, (missing, jnp.ones_like(weights)), mask=weights),
        artbp.Stream(stream.xs, (targets, weights), mask=counts),
    )


@functools.cache
def jitted(name):
    """The estimator of a row, jitted: one program for all tests of the row."""
    problem = weighted_problem()
    estimator = artbp.REGISTRY[name].build(problem.cell, problem.loss_fn, 4)
    return artbp.GradientEstimator(estimator.init, jax.jit(estimator.estimate))


def one_pass(estimator, problem, stream):
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(1))
    total, loss, number, is_over = jax.tree.map(jnp.zeros_like, problem.params), 0.0, 0, False
    while not is_over:
        grads, state, info = estimator.estimate(problem.params, state, stream)
        total = jax.tree.map(jnp.add, total, grads)
        loss, number = loss + float(info.loss_sum), number + int(info.num_losses)
        is_over = bool(info.end_of_stream)
    return total, loss, number


def check_weights(estimator):
    problem = weighted_problem()
    by_mask, by_loss = by_mask_and_by_loss(WEIGHTS, problem)
    total, loss, number = one_pass(estimator, problem, by_mask)
    expected, expected_loss, _ = one_pass(estimator, problem, by_loss)
    assert relative_error(total, expected) < 1e-10
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-12)
    assert number == np.count_nonzero(WEIGHTS)


@pytest.mark.parametrize("name", REGISTRY_ROWS)
def test_a_float_mask_weights_the_losses(name, float64):
    """Also where the target of a loss of weight 0 is NaN."""
    check_weights(jitted(name))


@pytest.mark.parametrize("policy", ["pow2", "exact"])
def test_a_float_mask_under_the_host_driven_policies(policy, float64):
    problem = weighted_problem()
    check_weights(artbp.artbp(problem.cell, problem.loss_fn, LAW, policy=policy))


def test_weights_of_zero_and_one_are_a_bool_mask(float64):
    problem = make_problem("gru", NUM_STEPS, mask=True)
    stream, estimator = problem.stream, artbp.bptt(problem.cell, problem.loss_fn)
    weights = artbp.Stream(stream.xs, stream.targets, mask=stream.mask.astype(float))
    jax.tree.map(
        np.testing.assert_array_equal,
        one_pass(estimator, problem, weights),
        one_pass(estimator, problem, stream),
    )


def test_weights_shared_by_the_rows_are_those_of_each_row(float64):
    problem = make_problem("gru", NUM_STEPS)
    stream, estimator = (
        problem.stream,
        artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=3),
    )
    shared, rows = (
        artbp.Stream(stream.xs, stream.targets, mask=mask)
        for mask in (WEIGHTS[:, 0], np.repeat(WEIGHTS[:, :1], 2, axis=1))
    )
    total, loss, number = one_pass(estimator, problem, shared)
    expected, expected_loss, expected_number = one_pass(estimator, problem, rows)
    assert relative_error(total, expected) < 1e-12
    np.testing.assert_allclose(loss, expected_loss)
    assert number == expected_number


def test_the_diagnostics_follow_the_weights(float64):
    problem = weighted_problem()
    streams = by_mask_and_by_loss(WEIGHTS, problem)
    model = (problem.cell, problem.loss_fn, problem.params, problem.carry)
    gates = jnp.ones((1, NUM_STEPS)).at[0, 2].set(0.0)
    assert (
        relative_error(*(gradients_of_gates(*model, stream, gates) for stream in streams)) < 1e-12
    )
    assert relative_error(*(unroll_window(*model, stream).cotangents for stream in streams)) < 1e-12
    measure = shadow(*model[:2], window_length=6, truncation_lengths=(2,))
    state = artbp.bptt(*model[:2]).init(*model[2:], rng_key=jax.random.key(0))
    found, expected = (measure(problem.params, state, s, jax.random.key(0)) for s in streams)
    assert expected["bias_2"] > 0.01
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, expected)


def test_the_gradient_report_follows_the_weights(float64):
    problem = weighted_problem(80)
    weights = np.tile(WEIGHTS, (10, 1))
    streams = by_mask_and_by_loss(weights, problem)
    model = (problem.cell, problem.loss_fn, problem.params, problem.carry)
    options = {"window_length": 8, "truncation_lengths": (2,), "laws": (LAW,), "num_samples": 2}
    found, expected = (
        gradient_report(*model, stream, rng_key=jax.random.key(0), **options) for stream in streams
    )
    np.testing.assert_allclose(found.gradient_norm, expected.gradient_norm, rtol=1e-10)
    for name in ("biases", "noises", "look_backs"):
        for a, b in zip(getattr(found, name), getattr(expected, name), strict=True):
            np.testing.assert_allclose(a.interval, b.interval, rtol=1e-8)


def make_runs(problem):
    """Runs that stop after one update of plain gradient descent."""

    def update(params, aux, grads, info):
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), aux + 1

    return independent_runs(
        problem.cell, problem.loss_fn, LAW, by_run(update), lambda params, aux: aux < 1
    )


def test_independent_runs_follow_the_weights(float64):
    problem = weighted_problem()
    runs, keys = make_runs(problem), jax.random.split(jax.random.key(0), 3)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), problem.params)
    run, state = jax.jit(runs.run), runs.init(problem.carry, keys)
    by_mask, by_loss = (
        run(params, jnp.zeros(3), state, stream)[0]
        for stream in by_mask_and_by_loss(WEIGHTS, problem)
    )
    assert relative_error(by_mask, by_loss) < 1e-12
    assert relative_error(by_mask, params) > 1e-6


@pytest.mark.parametrize("weight", [-0.5, np.nan, np.inf])
def test_weights_that_are_refused(weight):
    mask = np.ones((4, 2), np.float32)
    mask[2, 1] = weight
    for make in (np.asarray, jnp.asarray):
        with pytest.raises(ValueError, match=r"Stream.mask has the weight .* at \[2, 1\]"):
            artbp.Stream(jnp.zeros((4, 2, 3)), mask=make(mask))


def stands_beyond(state, position=NUM_STEPS + 3):
    return state._replace(position=jnp.asarray(position, jnp.int32))


@pytest.mark.parametrize("name", REGISTRY_ROWS)
def test_a_position_beyond_the_stream_is_refused_and_under_jit_nan(name, float64):
    """Under jit the estimate ends a pass: the next one begins the stream with the first carry."""
    problem, estimator = weighted_problem(), jitted(name)
    stream, _ = by_mask_and_by_loss(WEIGHTS, problem)
    first = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(1))
    refused = artbp.REGISTRY[name].build(problem.cell, problem.loss_fn, 4)
    for position in (NUM_STEPS, NUM_STEPS + 3):
        state = stands_beyond(first, position)
        with pytest.raises(ValueError, match=f"at step {position}, beyond this stream of 8 steps"):
            refused.estimate(problem.params, state, stream)
        grads, state, info = estimator.estimate(problem.params, state, stream)
        assert all(jnp.isnan(leaf).all() for leaf in jax.tree.leaves(grads))
        assert jnp.isnan(info.loss_sum)
        assert 1 <= info.length <= NUM_STEPS
        assert info.end_of_stream
        assert state.position == 0
        np.testing.assert_array_equal(state.carry, problem.carry)
        grads, _, info = estimator.estimate(problem.params, state, stream)
        assert np.isfinite(ravel_pytree(grads)[0]).all()
        assert jnp.isfinite(info.loss_sum)


@pytest.mark.parametrize("policy", ["dynamic", "pow2", "exact"])
def test_a_position_beyond_the_stream_is_refused_under_every_policy(policy):
    problem = make_problem("rnn", NUM_STEPS)
    for name in SEGMENTWISE:
        row = artbp.REGISTRY[name]
        estimator = row.build(problem.cell, problem.loss_fn, 4, policy=policy)
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(1))
        with pytest.raises(ValueError, match="beyond this stream of 8 steps"):
            estimator.estimate(problem.params, stands_beyond(state), problem.stream)


def test_a_pass_from_a_position_beyond_the_stream_ends():
    """The traced loop of `run_pass` ends, and its sum is NaN."""
    problem = make_problem("rnn", NUM_STEPS)
    estimator = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=3)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(1))
    run = jax.jit(lambda *arguments: artbp.run_pass(estimator, *arguments))
    total, state = run(problem.params, stands_beyond(state), problem.stream)
    assert all(jnp.isnan(leaf).all() for leaf in jax.tree.leaves(total))
    assert state.position == 0


def test_only_the_runs_beyond_their_stream_are_nan(float64):
    problem = weighted_problem()
    runs, stream = make_runs(problem), by_mask_and_by_loss(WEIGHTS, problem)[0]
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), problem.params)
    state = runs.init(problem.carry, jax.random.split(jax.random.key(0), 3))
    beyond = stands_beyond(state, [0, NUM_STEPS + 1, 2])
    with pytest.raises(ValueError, match="at step 9, beyond this stream of 8 steps"):
        runs.run(params, jnp.zeros(3), beyond, stream)
    run = jax.jit(runs.run)
    found = run(params, jnp.zeros(3), beyond, stream)[0]
    isnan = [np.isnan(leaf).reshape(3, -1) for leaf in jax.tree.leaves(found)]
    assert all((leaf == [[False], [True], [False]]).all() for leaf in isnan)
