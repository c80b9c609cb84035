"""Diagnostics on complex carries and parameters: each agrees with the same problem in real numbers.

A diagnostic of a complex number counts its real and its imaginary part. The gradient by z = x + iy
is ∂L/∂x − i ∂L/∂y, so that the twin in real numbers differs in the sign of imaginary parts.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from complex_problems import in_real_numbers, make_complex_problem, normal, split
from jax.flatten_util import ravel_pytree
from problems import SmallProblem, bptt_gradient, relative_error

import artbp
from artbp import truncation
from artbp.contrib import clipping_report, coupling_variance, sample_row_gates, sampled_bias
from artbp.diagnostics import (
    exact_expectation,
    gradient_report,
    gradients_of_gates,
    lag_profile,
    look_back_profile,
    shadow,
    truncation_covariance,
    truncation_variance,
    variance_along,
)

pytestmark = pytest.mark.usefixtures("float64")

LAW = truncation.polynomial(3, 4)
WITHOUT_LAW = (gradient_report, gradients_of_gates, lag_profile, look_back_profile)


def small(num_steps):
    """A problem that compiles quickly, and its twin in real numbers: two rows of one unit."""

    def cell(params, carry, x):
        carry = (
            params["rate"] * carry + 0.3j * jnp.conj(carry) + (params["gain"] * x).astype(complex)
        )
        return carry, carry.real * carry.imag

    keys = jax.random.split(jax.random.key(6))
    problem = SmallProblem(
        cell,
        lambda params, y, target: (y - target) ** 2,
        {"gain": jnp.array(0.8), "rate": jnp.array(0.5 + 0.4j)},
        jnp.array([0.3 + 0.2j, 0.1 - 0.5j]),
        artbp.Stream(*(jax.random.normal(key, (num_steps, 2)) for key in keys)),
    )
    return problem, in_real_numbers(problem)


def call(diagnostic, problem, *arguments, **options):
    """Calls `diagnostic(cell, loss_fn, law, params, carry, stream, …)`; some take no law."""
    data = problem.params, problem.carry, problem.stream
    law = () if diagnostic in WITHOUT_LAW else (LAW,)
    return diagnostic(problem.cell, problem.loss_fn, *law, *data, *arguments, **options)


def flat_real(tree):
    """The order of `truncation_covariance`: real parts of a leaf, then imaginary parts."""
    return ravel_pytree(split(tree))[0]


def signs_of(params):
    """−1 at imaginary parts."""
    return flat_real(
        jax.tree.map(lambda p: jnp.full_like(p, 1 - 1j if jnp.iscomplexobj(p) else 1), params)
    )


def test_the_covariance_has_two_rows_for_each_complex_number():
    problem = make_complex_problem(7)
    twin, signs = in_real_numbers(problem), signs_of(problem.params)
    expected = np.outer(signs, signs) * call(truncation_covariance, twin)
    found = call(truncation_covariance, problem)
    assert found.dtype == np.float64 and found.shape == (14, 14)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    z = jax.tree.map(
        lambda p: (p + 0.3).astype(p.dtype), {**problem.params, "input": normal(7, 1, 2)}
    )
    along = call(variance_along, problem, z)
    np.testing.assert_allclose(along, flat_real(z) @ expected @ flat_real(z), rtol=1e-11)


def test_the_covariance_equals_enumeration():
    problem, _ = small(4)
    found = exact_expectation(
        lambda law: artbp.artbp(problem.cell, problem.loss_fn, law, block_size=4),
        LAW,
        problem.params,
        problem.carry,
        problem.stream,
    )
    assert relative_error(found.mean, bptt_gradient(problem)) < 1e-12
    assert jnp.iscomplexobj(found.mean["rate"]) and not jnp.iscomplexobj(found.mean["gain"])
    assert relative_error(call(truncation_covariance, problem), found.covariance) < 1e-11


def test_the_interval_of_the_sampled_trace_covers_the_exact_one():
    """Level 99.9 %, fixed key. Each part of a complex number has its own sign."""
    problem, _ = small(7)
    options = {"rng_key": jax.random.key(2), "num_samples": 500, "confidence": 0.999}
    found = call(truncation_variance, problem, **options)
    exact = np.diagonal(call(truncation_covariance, problem))
    assert abs(found.trace - exact.sum()) < found.half_width < exact.sum() / 3
    assert abs(found.per_leaf["gain"] - exact[0]) < 4 * found.per_leaf_standard_error["gain"]
    assert abs(found.per_leaf["rate"] - exact[1:].sum()) < 4 * found.per_leaf_standard_error["rate"]


@pytest.mark.parametrize(
    ("theta", "gain", "factor", "derivative"),
    [(0.3, 1 + 1j, 3 + 4j, -0.5), (0.3 + 0.2j, 1, 3, 1.5), (0.3 + 0.2j, 1, 3j, 1.5)],
    ids=["complex carry", "real axis", "imaginary axis"],
)
def test_one_gate_and_one_parameter_have_no_sampling_error(theta, gain, factor, derivative):
    """With u = 1 every sample is c/(1 − c)·|dℓ_2/dθ through step 1|²."""

    def cell(theta, carry, x):
        carry = 0.5 * carry + jnp.complex128(gain) * theta.astype(complex)
        return carry, carry

    data = jnp.array(theta), jnp.array(1.0 + 1.0j), artbp.Stream(None, num_steps=2)
    options = {"rng_key": jax.random.key(0), "num_samples": 3}
    found = truncation_variance(
        cell, lambda theta, y, target: (jnp.complex128(factor) * y).real, LAW, *data, **options
    )
    hazard = LAW.hazard(1)
    assert found.trace == pytest.approx(hazard / (1 - hazard) * derivative**2, rel=1e-13)
    assert found.half_width < 1e-12


def test_the_gradient_report():
    options = {"truncation_lengths": (), "laws": (), "window_length": 4}
    options |= {"rng_key": jax.random.key(0)}
    found, expected = (call(gradient_report, problem, **options) for problem in small(32))
    assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-9)
    assert found.data_noise == pytest.approx(expected.data_noise, rel=1e-9)


@pytest.mark.slow
def test_the_gradient_report_in_full():
    """Except for the noise of ARTBP, whose samples are others."""
    options = {"truncation_lengths": (1,), "laws": (), "num_samples": 2}
    options |= {"window_length": 4, "rng_key": jax.random.key(0)}
    found, expected = (
        jax.tree.leaves(call(gradient_report, problem, **options)._replace(look_backs=()))
        for problem in small(32)
    )
    assert len(found) > 15
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_the_profiles_of_lags_and_look_backs():
    problem, twin = small(8)
    options = {"num_lags": 3, "rng_key": jax.random.key(0)}
    found, expected = (call(lag_profile, each, **options) for each in (problem, twin))
    for field in ("loss_norms", "gradient_norms", "bias_bounds", "gram"):
        np.testing.assert_allclose(getattr(found, field), getattr(expected, field), rtol=1e-9)
    options = {"truncation_length": 2, "num_windows": 3}
    found, expected = (call(look_back_profile, each, **options) for each in (problem, twin))
    np.testing.assert_allclose(found.remainders, expected.remainders, rtol=1e-9)


def gradients(problem, gates):
    """The gradient for each pattern of gates, `[patterns, P]`."""
    return jax.jit(lambda gates: jax.vmap(flat_real)(call(gradients_of_gates, problem, gates)))(
        gates
    )


def test_the_gradients_of_gates_and_what_they_serve():
    """The live monitor, the test for bias and the variance of several draws."""
    problem, _ = small(6)
    gates = jnp.concatenate([jnp.ones((1, 6)), jnp.array([[1, 0] * 3, [0.5] * 6])])
    whole, cut, half = gradients(problem, gates)
    expected = jax.jit(lambda: flat_real(bptt_gradient(problem)))()
    np.testing.assert_allclose(whole, expected, rtol=1e-10)

    def projection(other):
        return (other - whole) @ whole / (whole @ whole)

    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW, block_size=4)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    measure = shadow(problem.cell, problem.loss_fn, window_length=6, truncation_lengths=(2,))
    found = jax.jit(measure)(problem.params, state, problem.stream, jax.random.key(1))
    np.testing.assert_allclose(found["gradient_norm"], jnp.linalg.norm(whole), rtol=1e-10)
    np.testing.assert_allclose(found["projection_2"], projection(cut), rtol=1e-10)
    relative = jnp.linalg.norm(cut - whole) / jnp.linalg.norm(whole)
    np.testing.assert_allclose(found["bias_2"], relative, rtol=1e-10)

    found = call(
        sampled_bias,
        problem,
        jax.random.key(3),
        num_draws=1,
        batch_size=1,
        sample_gates=lambda rng_key, num_steps: jnp.full(num_steps, 0.5),
    )
    np.testing.assert_allclose(found.bias, projection(half), rtol=1e-10)
    variance = whole @ call(truncation_covariance, problem) @ whole
    np.testing.assert_allclose(found.deviation, jnp.sqrt(variance) / (whole @ whole), rtol=1e-10)

    options = {"coupling": "independent", "num_samples": 2, "num_draws": 1, "batch_size": 1}
    found = call(coupling_variance, problem, jax.random.key(3), **options)
    keys = jax.random.split(jax.random.key(3), (2, 1))[:, 0]
    gates = [sample_row_gates(LAW, key, 6, 1, "independent").T for key in keys]
    errors = gradients(problem, jnp.concatenate(gates)) - whole[None]
    np.testing.assert_allclose(found.trace, jnp.mean(jnp.sum(errors**2, axis=1)), rtol=1e-10)


def test_clipping():
    """One gradient, clipped to norm 1, and a reference in another direction."""
    problem, _ = small(6)
    estimator = artbp.bptt(problem.cell, problem.loss_fn, block_size=6)
    data = problem.params, problem.carry, problem.stream
    reference = {"gain": jnp.array(0.5), "rate": jnp.array(0.3 - 2.0j)}
    keys = jax.random.split(jax.random.key(0), 1)
    found = clipping_report(estimator, *data, keys, max_norm=1.0, reference=reference)
    r, g = flat_real(reference), flat_real(bptt_gradient(problem))
    c = g / jnp.linalg.norm(g)
    expected = c @ r / (r @ r), jnp.linalg.norm(c - r) / jnp.linalg.norm(r)
    assert found.against_reference is not None
    np.testing.assert_allclose(found.against_reference[2:], expected, rtol=1e-9)
