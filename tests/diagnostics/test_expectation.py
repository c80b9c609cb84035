"""`exact_expectation`: means and covariances against sums over patterns written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from problems import (
    ages,
    gated_gradient,
    make_problem,
    patterns,
    probability,
    relative_error,
)

import artbp
from artbp import truncation
from artbp.diagnostics import exact_expectation

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
    """The flat gradients of the gated unroll, one for each row of gates."""
    flat = jax.jit(jax.vmap(lambda gates: ravel_pytree(gated_gradient(problem, gates))[0]))
    return np.asarray(flat(jnp.asarray(gates, float)))


def test_mean_and_covariance_against_the_gated_unroll():
    """Another route to the gradient of a pattern, and the textbook formulas of both moments."""
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
