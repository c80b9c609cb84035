"""The system against plain NumPy, and its long-run behaviour."""

import jax.numpy as jnp
import numpy as np
import pytest
from influence_twin import SIGNS, A, N

import artbp
from experiments.influence_balancing import system

pytestmark = pytest.mark.usefixtures("float64")


def test_cell_equals_a_numpy_loop():
    drives = np.random.default_rng(0).normal(1.0, 1.0, 60)
    params = {"theta": jnp.float64(0.3)}
    _, ys = artbp.unroll(system.cell, params, system.initial_carry(), jnp.asarray(drives))

    state = np.ones(N)
    for drive, y in zip(drives, ys, strict=True):
        state = A @ state + drive * 0.3 * SIGNS
        np.testing.assert_allclose(y, state[0], rtol=1e-13)


def test_no_input_is_a_drive_of_one():
    params, carry = {"theta": jnp.float64(-0.7)}, system.initial_carry()
    np.testing.assert_array_equal(
        system.cell(params, carry, None)[0], system.cell(params, carry, jnp.float64(1.0))[0]
    )


def test_stationary_state_optimum_and_loss():
    theta = 0.5
    stationary = np.linalg.solve(np.eye(N) - A, theta * SIGNS)
    assert stationary[0] == pytest.approx(-6 * theta, rel=1e-12)
    assert system.STATIONARY_GAIN == -6
    assert pytest.approx(-1 / 6) == system.OPTIMAL_THETA

    carry = jnp.asarray(stationary)
    new_carry, y = system.cell({"theta": jnp.float64(theta)}, carry, None)
    np.testing.assert_allclose(new_carry, carry, rtol=1e-12)
    assert system.loss_fn({}, y, None) == pytest.approx(8.0, rel=1e-12)
    assert system.stationary_loss(theta) == pytest.approx(8.0, rel=1e-15)
    assert system.stationary_loss(system.OPTIMAL_THETA) == 0


def test_the_influence_of_theta_changes_sign_with_the_delay():
    influence = system.influence(400)
    assert influence[0] == 1
    assert influence[:10].sum() > 0
    assert influence.sum() == pytest.approx(-6, rel=1e-12)

    carry = jnp.zeros(N)
    params, off = {"theta": jnp.float64(1.0)}, {"theta": jnp.float64(0.0)}
    carry, y = system.cell(params, carry, None)
    for delay in range(1, 30):
        assert float(y) == pytest.approx(influence[delay - 1], rel=1e-12, abs=1e-15)
        carry, y = system.cell(off, carry, None)
