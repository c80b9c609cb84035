"""`lag_profile` equals closed forms of a linear system and independent computations."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from problems import as_function, gated_gradient, make_problem

import artbp
from artbp.diagnostics import lag_profile
from artbp.diagnostics.lag_gradients import (
    lag_gradients,
    lag_projections,
    random_signs,
    unroll_window,
)

pytestmark = pytest.mark.usefixtures("float64")

RATE = 0.8
PARTS = operator.attrgetter("cell", "loss_fn", "params", "carry", "stream")


def cell(theta, carry, rates):
    carry = jnp.broadcast_to(rates, carry.shape) * carry + jnp.broadcast_to(theta, carry.shape)
    return carry, carry


def loss_fn(theta, y, target):
    return jnp.sum(y, axis=-1)


def linear(rates, num_steps=60, batch=None):
    """Makes s' = rates·s + θ, ℓ = Σ s, whose profile consists of powers of the rates."""
    size = len(rates)
    carry = jnp.zeros((size,) if batch is None else (batch, size))
    stream = artbp.Stream(jnp.tile(jnp.asarray(rates), (num_steps, 1)))
    return cell, loss_fn, jnp.zeros((size,)), carry, stream


def test_the_closed_forms_of_a_linear_system():
    """∂ℓ_t/∂s_{t−k} = a^k, γ_k = a^k, b_u = a(1 − a^(T−u))/(1 − a), G_{u,m} = b_u a^m."""
    num_steps, num_lags = 60, 10
    problem = linear([RATE], num_steps)
    found = lag_profile(*problem, num_lags=num_lags, rng_key=jax.random.key(0))
    powers = RATE ** np.arange(1, num_lags + 1)
    np.testing.assert_allclose(found.loss_norms, powers, rtol=1e-12)
    np.testing.assert_allclose(found.gradient_norms, powers, rtol=1e-12)
    np.testing.assert_allclose(found.bias_bounds, powers * RATE / (1 - RATE), rtol=1e-12)
    steps = np.arange(num_lags, num_steps - num_lags + 1)
    cotangents = RATE * (1 - RATE ** (num_steps - steps)) / (1 - RATE)
    parts = RATE ** np.arange(num_lags)
    np.testing.assert_allclose(
        found.gram, np.mean(cotangents**2) * np.outer(parts, parts), rtol=1e-12
    )
    assert found.decay_rate == pytest.approx(RATE, rel=1e-12)
    assert found.time_constant == pytest.approx(-1 / np.log(RATE), rel=1e-12)
    assert found.growth_rate == pytest.approx(np.log(RATE), rel=1e-12)
    assert found.dynamics == "vanishing"


def test_rates_that_change_from_step_to_step():
    """∂ℓ_t/∂s_{t−k} = a_t ⋯ a_{t−k+1}, with a rate a_t for each step."""
    num_steps, num_lags = 20, 4
    rates = np.random.default_rng(0).uniform(0.3, 1.5, num_steps)
    problem = cell, loss_fn, jnp.zeros(1), jnp.zeros(1), artbp.Stream(jnp.asarray(rates)[:, None])
    found = lag_profile(*problem, num_lags=num_lags, rng_key=jax.random.key(0))
    losses = range(num_lags, num_steps)
    expected = [
        np.mean([np.prod(rates[t - k + 1 : t + 1]) for t in losses]) for k in range(1, num_lags + 1)
    ]
    np.testing.assert_allclose(found.loss_norms, expected, rtol=1e-12)
    np.testing.assert_allclose(found.gradient_norms, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("rates", "dynamics"),
    [((0.97, 0.2), "long memory"), ((1.15, 0.2), "exploding"), ((0.5, 0.2), "vanishing")],
)
def test_the_growth_rate_is_that_of_the_leading_direction(rates, dynamics):
    problem = linear(rates, 80, batch=2)
    found = lag_profile(*problem, num_lags=10, num_samples=2, rng_key=jax.random.key(0))
    assert found.growth_rate == pytest.approx(np.log(rates[0]), abs=1e-6)
    assert found.dynamics == dynamics
    assert np.isinf(found.time_constant) == (rates[0] > 1)
    # Each of two rows has its own norm, √(a² + b²) at lag 1, while γ sums over rows.
    assert found.loss_norms[0] == pytest.approx(np.hypot(*rates))
    assert found.gradient_norms[0] == pytest.approx(2 * np.hypot(*rates))


def test_the_gram_against_gates_that_cut():
    """A gate of 0 behind step u removes the gradients G_{u,m} from the gated unroll.

    D_j = ∇(cut behind u − j) − ∇(cut behind u − j and u) = Σ_{m<j} G_{u,m}, in one row or in both;
    ‖D_j‖² is the sum of the first j × j entries of the Gram.
    """
    num_steps, num_lags = 9, 4
    problem = as_function(make_problem("rnn", num_steps, mask=True))
    gates = []
    for u in range(num_lags, num_steps - num_lags + 1):
        for lags in range(1, num_lags + 1):
            for rows in ([0], [1], [0, 1]):
                farther = np.ones((num_steps, 2))
                if u > lags:  # u counts from 1, so gates[u − 1] is behind step u
                    farther[u - lags - 1] = 0
                cut = farther.copy()
                cut[u - 1, rows] = 0
                gates.append((farther, cut))
    flat = jax.jit(jax.vmap(lambda gates: ravel_pytree(gated_gradient(problem, gates))[0]))
    gates = np.array(gates)
    lost = np.asarray(flat(jnp.asarray(gates[:, 0])) - flat(jnp.asarray(gates[:, 1])))
    squares = np.sum(lost**2, axis=-1).reshape(-1, num_lags, 3).mean(axis=0)
    by_row, together = squares[:, :2].sum(axis=1), squares[:, 2]
    for per_row, expected in ((False, together), (True, by_row)):
        gram = lag_profile(
            *PARTS(problem), num_lags=num_lags, rng_key=jax.random.key(0), per_row=per_row
        ).gram
        sums = [gram[:j, :j].sum() for j in range(1, num_lags + 1)]
        np.testing.assert_allclose(sums, expected, rtol=1e-10)
    assert abs(by_row[-1] - together[-1]) > 0.01 * together[-1]
    # 80 directions at each of the 2 steps, within 4 standard deviations, which are at most √2
    # relative to the mean of a squared product; fixed key.
    options = {"num_lags": num_lags, "rng_key": jax.random.key(0)}
    probed = lag_profile(*PARTS(problem), **options, per_row=True, num_probes=80).gram
    once = lag_profile(*PARTS(problem), **options, per_row=True, num_probes=1).gram
    assert np.abs(probed - once).max() > 1e-3 * np.abs(gram).max()  # the control: they differ
    assert np.abs(probed - gram).max() < 4 * np.sqrt(2 / 160) * np.abs(gram).max()


def test_products_with_a_direction():
    """Projections equal products with G for every leaf and lag, for summed and separate rows."""
    problem = as_function(make_problem("rnn", 6, resets=True))
    window = unroll_window(*PARTS(problem))
    u = np.int32(5)
    direction = random_signs(jax.random.key(7), problem.params)
    leaves, treedef = jax.tree.flatten(direction)
    for per_row in (False, True):
        parts = lag_gradients(window, u, 6, per_row)
        found = lag_projections(window, u, direction, 6, per_row)
        for i, leaf in enumerate(leaves):
            signs = [jnp.zeros_like(other) for other in leaves]
            signs[i] = leaf
            expected = parts @ ravel_pytree(treedef.unflatten(signs))[0]
            np.testing.assert_allclose(found[..., i], expected, rtol=0, atol=1e-13)
        assert np.abs(found[:5]).max() > 0.01
        assert not found[5:].any()  # lag 5 would be before the first step


def test_errors():
    problem = linear([RATE], 19)
    with pytest.raises(ValueError, match="19 steps and num_lags=10"):
        lag_profile(*problem, num_lags=10, rng_key=jax.random.key(0))
    with pytest.raises(ValueError, match="num_lags ≥ fitted_from"):
        lag_profile(*problem, num_lags=4, fitted_from=3, rng_key=jax.random.key(0))
    with pytest.raises(ValueError, match="per_row=True"):
        lag_profile(*problem, num_lags=4, per_row=True, rng_key=jax.random.key(0))
    with pytest.raises(ValueError, match="num_probes=0"):
        lag_profile(*problem, num_lags=4, num_probes=0, rng_key=jax.random.key(0))
