"""A planted bias of 2 % is detected, an unbiased rule passes, and the deviation is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from problems import bptt_gradient, make_problem

import artbp
from artbp import truncation
from artbp.contrib import sampled_bias
from artbp.diagnostics import truncation_covariance, variance_along

pytestmark = pytest.mark.usefixtures("float64")

LAW = truncation.polynomial(8, 4)
NUM_STEPS = 40
# The false alarm rate is 1e-4.
CONFIDENCE = 1 - 1e-4


def cell(theta, carry, x):
    carry = 0.5 * carry + theta * x
    return carry, carry


def loss_fn(theta, y, target):
    return (y - target) ** 2


@pytest.fixture(scope="module")
def system():
    """Returns (params, carry, stream) of a linear cell with a short memory."""
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(3))
        stream = artbp.Stream(*(jax.random.normal(key, (NUM_STEPS, 2)) for key in keys))
        return jnp.asarray(0.7), jnp.zeros(2), stream


def measure(system, sample_gates=None, num_draws=16_384, **options):
    return sampled_bias(
        cell,
        loss_fn,
        LAW,
        *system,
        jax.random.key(11),
        num_draws=num_draws,
        confidence=CONFIDENCE,
        sample_gates=sample_gates,
        batch_size=1024,
        **options,
    )


def shrinkage(system, bias):
    """Finds δ for which gates of mean 1 − δ have exactly this bias.

    E[ĝ] is then the gradient with every gate 1 − δ, because E[gate | past] = 1 − δ at each step.
    """
    theta, carry, stream = system

    @jax.jit
    def gradient(delta):
        def loss(theta):
            gates = jnp.full(NUM_STEPS, 1 - delta)
            _, ys = artbp.unroll(cell, theta, carry, stream.xs, gates=gates)
            return jnp.sum(loss_fn(theta, ys, stream.targets))

        return jax.grad(loss)(theta)

    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        found = gradient(middle) / gradient(0.0) - 1
        low, high = (middle, high) if abs(found) < abs(bias) else (low, middle)
    np.testing.assert_allclose(abs(gradient(low) / gradient(0.0) - 1), abs(bias), rtol=1e-6)
    return low


def test_two_per_cent_of_bias_are_detected_and_no_bias_passes(system):
    found = measure(system)
    assert abs(found.bias) < found.half_width < 0.01
    delta = shrinkage(system, 0.02)

    def planted(rng_key, num_steps):
        return LAW.sample_gates(rng_key, num_steps) * (1 - delta)

    seen = measure(system, planted)
    assert abs(seen.bias) > seen.half_width
    np.testing.assert_allclose(abs(seen.bias), 0.02, atol=seen.half_width)

    def uncompensated(rng_key, num_steps):
        return jnp.where(LAW.sample_gates(rng_key, num_steps) > 0, 1.0, 0.0)

    control = measure(system, uncompensated, num_draws=1024)
    assert abs(control.bias) > 3 * control.half_width


def test_the_deviation_is_that_of_the_exact_covariance():
    problem = make_problem("rnn", 12, resets=True, mask=True)
    arguments = problem.params, problem.carry, problem.stream
    options = {"initial_carry": jax.tree.map(lambda leaf: leaf + 0.5, problem.carry)}
    exact = truncation_covariance(problem.cell, problem.loss_fn, LAW, *arguments, **options)
    z = jax.tree.map(jnp.cos, problem.params)
    along = variance_along(problem.cell, problem.loss_fn, LAW, *arguments, z, **options)
    flat = ravel_pytree(z)[0]
    np.testing.assert_allclose(along, flat @ exact @ flat, rtol=1e-10)
    # The control: the carry after a reset matters.
    other = truncation_covariance(problem.cell, problem.loss_fn, LAW, *arguments)
    assert abs(flat @ other @ flat / along - 1) > 1e-3

    found = sampled_bias(
        problem.cell, problem.loss_fn, LAW, *arguments, jax.random.key(0), num_draws=3, batch_size=2
    )
    assert found.num_draws == 4
    flat = ravel_pytree(bptt_gradient(problem))[0]
    expected = np.sqrt(flat @ other @ flat) / (flat @ flat)
    np.testing.assert_allclose(found.deviation, expected, rtol=1e-9)
    np.testing.assert_allclose(found.standard_error, expected / 2, rtol=1e-9)
    np.testing.assert_allclose(found.half_width, 1.959964 * expected / 2, rtol=1e-6)


def test_a_zero_gradient_is_refused(system):
    theta, carry, stream = system
    with pytest.raises(ValueError, match="zero"):
        sampled_bias(
            cell, lambda *_: jnp.zeros(2), LAW, theta, carry, stream, jax.random.key(0), num_draws=1
        )


def test_the_half_width_determines_the_number_of_draws(system):
    def measure(laws, **options):
        data = (*system, jax.random.key(11))
        options = {"num_draws": 8192, "batch_size": 32, "confidence": CONFIDENCE} | options
        return sampled_bias(cell, loss_fn, laws, *data, **options)

    both = measure([LAW, truncation.geometric(8)], half_width=0.006)
    for found in both:
        assert abs(found.bias) < found.half_width <= 0.006
        # One batch less would not suffice.
        fewer = found.num_draws - 32
        assert found.half_width * np.sqrt(found.num_draws / fewer) > 0.006
    assert both[0].num_draws != both[1].num_draws  # each law has its own
    # The draws equal those of a call with this num_draws.
    given = measure(LAW, num_draws=both[0].num_draws)
    np.testing.assert_allclose(both[0].bias, given.bias, rtol=1e-9)
    assert measure(LAW, half_width=1e-4).num_draws == 8192
    assert measure(LAW, half_width=10.0).num_draws == 32
