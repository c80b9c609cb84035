"""`exact_expectation` equals sums over patterns that are written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from problems import (
    ages,
    gated_gradient,
    make_problem,
    one_pass,
    patterns,
    probability,
    relative_error,
)

import artbp
from artbp import truncation
from artbp.diagnostics import exact_expectation, truncation_covariance

pytestmark = pytest.mark.usefixtures("float64")

NUM_STEPS = 6
LAW = truncation.polynomial(3, 4)


def run(problem, law=LAW, make_estimator=None, **options):
    make_estimator = make_estimator or (
        lambda law: artbp.artbp(problem.cell, problem.loss_fn, law, block_size=4)
    )
    return exact_expectation(
        make_estimator, law, problem.params, problem.carry, problem.stream, **options
    )


def unrolled(problem, gates):
    """Computes the flat gradient of the gated unroll for each row of gates."""
    flat = jax.jit(jax.vmap(lambda gates: ravel_pytree(gated_gradient(problem, gates))[0]))
    return np.asarray(flat(jnp.asarray(gates, float)))


def test_mean_and_covariance_against_the_gated_unroll():
    """The gated unroll gives the gradients, and textbook formulas give both moments."""
    problem = make_problem("rnn", NUM_STEPS, resets=True, mask=True)
    found = run(problem, batch_size=7)  # does not divide 32
    all_patterns = patterns(NUM_STEPS)
    gates = [np.where(p, 0.0, LAW.compensation(ages(p))) for p in all_patterns]
    *gradients, true = unrolled(problem, [*gates, np.ones(NUM_STEPS)])
    weights = np.array([probability(p, LAW) for p in all_patterns])
    mean = weights @ gradients
    covariance = (gradients - mean).T @ (weights[:, None] * (gradients - mean))
    found_mean = ravel_pytree(found.mean)[0]
    np.testing.assert_allclose(found_mean, mean, rtol=0, atol=1e-13)
    np.testing.assert_allclose(found_mean, true, rtol=0, atol=1e-13)  # unbiased
    scale = np.abs(covariance).max()
    np.testing.assert_allclose(found.covariance, covariance, rtol=0, atol=1e-12 * scale)
    assert scale > 1e-3
    assert abs(found.total_probability - 1) < 1e-14
    assert found.num_patterns == 2 ** (NUM_STEPS - 1)


def test_truncated_bptt_is_one_pattern_with_a_bias_and_no_variance():
    problem = make_problem("rnn", NUM_STEPS)
    fixed = run(problem, truncation.fixed(2))
    cut, true = unrolled(problem, [[1, 0] * (NUM_STEPS // 2), [1] * NUM_STEPS])
    assert relative_error(fixed.mean, cut) < 1e-13
    assert relative_error(fixed.mean, true) > 0.01
    assert fixed.num_patterns == 1
    assert not fixed.covariance.any()


def test_sixteen_steps_of_a_scalar_cell():
    """The longest stream, 32,768 patterns, against a loop in NumPy and against the formula."""
    num_steps, a, b, first = 16, 0.9, 0.5, 0.3
    xs = np.asarray(jax.random.normal(jax.random.key(3), (num_steps,)))
    states = [first]
    for x in xs:
        states.append(a * states[-1] + b * x)

    def by_hand(gates):
        """Computes the gradient of Σ ½ s_t², s_t = a·s_{t−1} + b·x_t, in a and b for each row."""
        found, flow = np.zeros((len(gates), 2)), np.zeros(len(gates))
        for t in reversed(range(num_steps)):
            cotangent = states[t + 1] + gates[:, t] * flow
            found += cotangent[:, None] * np.array([states[t], xs[t]])
            flow = a * cotangent
        return found

    def cell(params, carry, x):
        carry = params["a"] * carry + params["b"] * x
        return carry, carry

    def loss_fn(params, y, target):
        return 0.5 * y**2

    params = {"a": jnp.array(a), "b": jnp.array(b)}
    parts = (params, jnp.array(first), artbp.Stream(jnp.asarray(xs)))
    found = exact_expectation(lambda law: artbp.artbp(cell, loss_fn, law), LAW, *parts)
    all_patterns = patterns(num_steps)
    all_ages = np.array([ages(pattern) for pattern in all_patterns])
    compensated = np.where(all_patterns, 0.0, LAW.compensation(all_ages))
    hazard = LAW.hazard(all_ages)[:, :-1]
    weights = np.prod(np.where(all_patterns[:, :-1], hazard, 1 - hazard), axis=1)
    gradients = by_hand(compensated)
    (true,) = by_hand(np.ones((1, num_steps)))
    mean = weights @ gradients
    covariance = (gradients - mean).T @ (weights[:, None] * (gradients - mean))
    found_mean = ravel_pytree(found.mean)[0]
    assert found.num_patterns == 2**15
    assert abs(found.total_probability - 1) < 1e-13
    np.testing.assert_allclose(found_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found_mean, true, rtol=1e-12)
    scale = np.abs(covariance).max()
    np.testing.assert_allclose(found.covariance, covariance, rtol=0, atol=1e-12 * scale)
    formula = truncation_covariance(cell, loss_fn, LAW, *parts)
    np.testing.assert_allclose(found.covariance, formula, rtol=0, atol=1e-12 * scale)
    # Controls: the mean without compensation and the covariance of another law differ.
    plain = weights @ by_hand(np.where(all_patterns, 0.0, 1.0))
    assert np.abs(plain - true).max() > 0.01 * np.abs(true).max()
    other = truncation_covariance(cell, loss_fn, truncation.polynomial(3.3, 4), *parts)
    assert np.abs(found.covariance - other).max() > 0.01 * scale


def test_an_estimator_with_other_segments_is_refused():
    """Its look-backs would be taken for boundaries."""
    problem = make_problem("rnn", 4)

    def make(law):
        return artbp.unbiased_tbptt(problem.cell, problem.loss_fn, law, truncation_length=2)

    with pytest.raises(ValueError, match="does not end its segments where the law says"):
        run(problem, make_estimator=make)
    # A single pattern needs no probabilities.
    exact = run(problem, truncation.never(), make)
    assert relative_error(exact.mean, gated_gradient(problem, None)) < 1e-12
    once, *_ = one_pass(make(truncation.fixed(2)), problem)
    assert relative_error(run(problem, truncation.fixed(2), make).mean, once) < 1e-12


def test_errors():
    problem = make_problem("rnn", 3)
    longer = problem._replace(stream=artbp.Stream(np.zeros((17, 2, 3))))
    with pytest.raises(ValueError, match=r"17 steps, hence 2\^16 .* at most 16"):
        run(longer)
    with pytest.raises(TypeError, match="truncation law"):
        run(problem, law=3)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), problem.params)
    with pytest.raises(ValueError, match="float64"):
        run(problem._replace(params=half))
    with jax.enable_x64(False), pytest.raises(ValueError, match="enable_x64"):
        run(problem)
