"""Every measure takes the carry after a reset as the estimators do, lasting leaves included."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import make_problem, relative_error

import artbp
from artbp import truncation
from artbp.contrib import clipping_report, coupling_variance, multi_draw_gradient
from artbp.diagnostics import exact_expectation, lag_profile

pytestmark = pytest.mark.usefixtures("float64")

LAW = truncation.polynomial(3, 4)


def problem_with_a_counter():
    """An RNN whose input grows with the number of steps since the very beginning: [B] per row."""
    problem = make_problem("rnn", 9, resets=True)

    def cell(params, carry, x):
        hidden, count = carry
        hidden, y = problem.cell(params, hidden, x + 0.1 * count[:, None])
        return (hidden, count + 1), y

    carry = problem.carry, jnp.zeros(2)
    return problem._replace(cell=cell, carry=carry)


def initial(problem):
    return jnp.full_like(problem.carry[0], 0.5), None


def by_hand(problem, initial_carry=True):
    """The gradient of the summed losses of a plain loop; False: all leaves begin again at zero."""

    def loss(params):
        (hidden, count), total, stream = problem.carry, 0.0, problem.stream
        for t in range(stream.num_steps):
            reset = stream.resets[t]
            hidden = jnp.where(reset[:, None], 0.5 if initial_carry else 0.0, hidden)
            count = count if initial_carry else jnp.where(reset, 0.0, count)
            (hidden, count), y = problem.cell(params, (hidden, count), stream.xs[t])
            total += jnp.sum(problem.loss_fn(params, y, stream.targets[t]))
        return total

    return jax.grad(loss)(problem.params)


def test_gradients():
    problem = problem_with_a_counter()
    assert problem.stream.resets.any()
    parts = problem.params, problem.carry, problem.stream
    options = {"initial_carry": initial(problem)}
    expected = by_hand(problem)
    assert relative_error(by_hand(problem, False), expected) > 0.01  # the control
    drawn = multi_draw_gradient(
        problem.cell,
        problem.loss_fn,
        truncation.never(),
        *parts,
        jax.random.key(0),
        num_draws=2,
        **options,
    )
    assert relative_error(drawn, expected) < 1e-12

    def make(law):
        return artbp.artbp(problem.cell, problem.loss_fn, law)

    short = problem._replace(stream=jax.tree.map(lambda leaf: leaf[:6], problem.stream))
    short = artbp.Stream(short.stream.xs, short.stream.targets, short.stream.resets)
    found = exact_expectation(make, LAW, *parts[:2], short, **options)
    assert relative_error(found.mean, by_hand(problem._replace(stream=short))) < 1e-12
    keys = jax.random.split(jax.random.key(0), 1)
    bptt = artbp.bptt(problem.cell, problem.loss_fn)
    report = clipping_report(bptt, *parts, keys, max_norm=np.inf, reference=expected, **options)
    assert report.against_reference.relative_bias < 1e-12


def test_variances_and_profiles():
    """Against the samples of the draws that they stand for, and the control of other carries."""
    problem = problem_with_a_counter()
    parts = problem.cell, problem.loss_fn
    data = problem.params, problem.carry, problem.stream
    options = {"initial_carry": initial(problem)}
    rng_key = jax.random.key(0)
    coupled = {"coupling": "independent", "num_samples": 3, "num_draws": 2, "batch_size": 3}
    found = coupling_variance(*parts, LAW, *data, rng_key, **coupled, **options).trace
    squares = []
    for key in jax.random.split(rng_key, (1, 3))[0]:
        drawn = multi_draw_gradient(*parts, LAW, *data, key, num_draws=2, **options)
        error = jax.tree.map(jnp.subtract, drawn, by_hand(problem))
        squares.append(optax.tree.norm(error, squared=True))
    np.testing.assert_allclose(found, np.mean(squares), rtol=1e-10)

    profile = {"num_lags": 3, "rng_key": rng_key}
    gram = lag_profile(*parts, *data, **profile, **options).gram
    zeros = jax.tree.map(jnp.zeros_like, problem.carry)
    for other in (None, (initial(problem)[0], zeros[1]), (zeros[0], None)):
        changed = lag_profile(*parts, *data, **profile, initial_carry=other).gram
        assert np.abs(gram - changed).max() > 1e-3 * np.abs(gram).max()
