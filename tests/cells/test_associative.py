"""The associative unroll equals the sequential one, with gates and resets, and so do gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import relative_error

import artbp
from artbp import cells

pytestmark = pytest.mark.usefixtures("float64")

NUM_STEPS, ROWS, INPUTS, UNITS = 13, 3, 4, 5


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("options", [("gates",), ("gates", "resets")])
def test_it_is_the_sequential_unroll(options, by_row):
    keys = jax.random.split(jax.random.key(1), 6)
    params = cells.lru.init(keys[0], INPUTS, UNITS, dtype=jnp.float64)
    carry = jax.tree.map(lambda leaf: leaf + 0.3, cells.lru.initial_carry(params, ROWS))
    initial = jax.tree.map(lambda leaf: leaf - 0.5, carry)
    shape = (NUM_STEPS, ROWS) if by_row else (NUM_STEPS,)
    arrays = {
        "gates": 2 * jax.random.uniform(keys[1], shape),
        "resets": jax.random.bernoulli(keys[2], 0.3, shape),
    }
    arrays = {name: arrays[name] for name in options}
    xs = jax.random.normal(keys[3], (NUM_STEPS, ROWS, INPUTS))
    weights = jax.random.normal(keys[4], (NUM_STEPS, ROWS, UNITS))

    def of(unroll):
        def loss(params, carry, initial, xs):
            last, ys = unroll(cells.lru, params, carry, xs, initial_carry=initial, **arrays)
            return jnp.sum(weights * ys) + jnp.sum(weights[0] * (last.real - last.imag**2))

        return jax.value_and_grad(loss, argnums=(0, 1, 2, 3))(params, carry, initial, xs)

    found, expected = of(artbp.associative_unroll), of(artbp.unroll)
    assert relative_error(found, expected) < 1e-12
    if "gates" in options:  # a control: they change the gradient
        arrays["gates"] = jnp.ones(shape)
        assert relative_error(of(artbp.unroll), expected) > 1e-3


def test_a_reset_ends_what_is_not_finite():
    params = cells.lru.init(jax.random.key(0), INPUTS, UNITS, dtype=jnp.float64)
    carry = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.inf), cells.lru.initial_carry(params, 2))
    xs = jax.random.normal(jax.random.key(1), (4, 2, INPUTS)).at[1, 1].set(jnp.nan)
    resets = jnp.array([[True, False], [False, False], [False, True], [False, False]])
    mask = jnp.array([[True, True], [True, False], [True, True], [True, True]])

    def loss(unroll, params):
        _, ys = unroll(cells.lru, params, carry, xs, resets=resets)
        return jnp.sum(jnp.where(mask[..., None], ys, 0) ** 2), ys

    (_, found), (_, expected) = (loss(f, params) for f in (artbp.associative_unroll, artbp.unroll))
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-12)
    assert np.isfinite(np.asarray(found)[2:]).all()


def test_what_only_the_sequential_unroll_takes():
    params = cells.lru.init(jax.random.key(0), INPUTS, UNITS, dtype=jnp.float64)
    carry, xs = cells.lru.initial_carry(params, ROWS), jnp.zeros((2, ROWS, INPUTS))
    resets = jnp.array([False, True])
    with pytest.raises(ValueError, match="expected no None in it"):
        artbp.associative_unroll(
            cells.lru, params, carry, xs, resets=resets, initial_carry=carry._replace(real=None)
        )
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), carry)
    message = "float32 or float64 for the carry and the params alike"
    with jax.numpy_dtype_promotion("standard"), pytest.raises(TypeError, match=message):
        artbp.associative_unroll(cells.lru, params, narrow, xs)


def test_other_cells_are_refused():
    params = cells.gru.init(jax.random.key(0), INPUTS, UNITS)
    carry, xs = cells.gru.initial_carry(params, ROWS), jnp.zeros((2, ROWS, INPUTS))
    for cell in (cells.gru, cells.elementwise_lstm):
        with pytest.raises(TypeError, match=r"linear diagonal cell.*Use artbp\.unroll"):
            artbp.associative_unroll(cell, params, carry, xs)


def test_the_ring_of_the_first_lru():
    params = cells.lru.init(jax.random.key(0), 3, 4000, smallest=0.8, largest=0.9, max_phase=0.5)
    decay = cells.lru.decay(params["units"])
    modulus, phase = jnp.abs(decay), jnp.angle(decay)
    assert 0.8 <= modulus.min() < 0.801
    assert 0.899 < modulus.max() <= 0.9
    # Uniform on the ring: the squared modulus is uniform.
    assert jnp.mean(modulus**2) == pytest.approx((0.8**2 + 0.9**2) / 2, abs=0.003)
    assert 0 <= phase.min() < 0.001
    assert 0.499 < phase.max() <= 0.5
    assert jnp.allclose(jnp.exp(2 * params["units"]["log_gamma"]), 1 - modulus**2, rtol=1e-3)


def test_the_lru_by_hand():
    params = cells.lru.init(jax.random.key(0), INPUTS, UNITS, output_size=2, dtype=jnp.float64)
    carry = cells.LRUCarry(jnp.full((ROWS, UNITS), 0.3), jnp.full((ROWS, UNITS), -0.2))
    x = np.asarray(jax.random.normal(jax.random.key(1), (ROWS, INPUTS)))
    new, y = cells.lru(params, carry, jnp.asarray(x))
    p = jax.tree.map(np.asarray, params)
    decay = np.exp(-np.exp(p["units"]["log_nu"]) + 1j * np.exp(p["units"]["log_theta"]))
    matrix = p["input"][:, :UNITS] + 1j * p["input"][:, UNITS:]
    state = decay * (0.3 - 0.2j) + np.exp(p["units"]["log_gamma"]) * (x @ matrix)
    output = p["output"]["real"] + 1j * p["output"]["imag"]
    np.testing.assert_allclose(np.asarray(new.real) + 1j * np.asarray(new.imag), state, rtol=1e-12)
    np.testing.assert_allclose(
        np.asarray(y), (state @ output).real + x @ p["output"]["skip"], rtol=1e-11
    )
