"""The authors' cell: the step by hand, and the hand-written backward pass against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import artbp
from experiments.ptb.authors_cell import authors_lstm

pytestmark = pytest.mark.usefixtures("float64")

SYMBOLS, UNITS, ROWS, NUM_STEPS = 5, 4, 3, 8


@pytest.fixture
def params():
    params = authors_lstm.init(jax.random.key(0), SYMBOLS, UNITS, forget_bias=2.0)
    return jax.tree.map(lambda leaf: leaf.astype(float), params)


def test_a_step_by_hand(params):
    rng = np.random.default_rng(0)
    carry = authors_lstm.initial_carry(params, ROWS)
    carry = carry._replace(memory=rng.normal(size=(ROWS, UNITS)), hidden=rng.normal(size=(3, 4)))
    x = np.array([0, 4, 2])
    p = jax.tree.map(np.asarray, params)
    new, y = authors_lstm(params, carry, jnp.asarray(x))
    for row in range(ROWS):
        m = p["mixed_input"][x[row]] + carry.hidden[row] @ p["mixed_recurrent"] + p["mixed_bias"]
        z = p["input"][x[row]] + m @ p["recurrent"] + p["bias"]
        i, f, g, o = z[:4], z[4:8], z[8:12], z[12:]
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        memory = f * carry.memory[row] + i * g
        np.testing.assert_allclose(new.memory[row], memory, rtol=1e-12)
        np.testing.assert_allclose(new.hidden[row], np.tanh(memory * o), rtol=1e-12)
    np.testing.assert_array_equal(y, new.hidden)


def _gradient(cell, params):
    xs = jax.random.randint(jax.random.key(1), (NUM_STEPS, ROWS), 0, SYMBOLS)
    targets = jax.random.normal(jax.random.key(2), (NUM_STEPS, ROWS, UNITS))

    def loss_fn(params, y, target):
        return jnp.sum((y - target) ** 2, axis=-1)

    estimator = artbp.tbptt(cell, loss_fn, truncation_length=NUM_STEPS, block_size=3)
    carry = authors_lstm.initial_carry(params, ROWS)
    state = estimator.init(params, carry, rng_key=jax.random.key(0))
    return estimator.estimate(params, state, artbp.Stream(xs, targets))[0]


def test_the_backward_pass_is_that_of_the_step(params):
    assert authors_lstm.recurrence(params) is not None
    expected = _gradient(lambda params, carry, x: authors_lstm(params, carry, x), params)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(expected))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13),
        _gradient(authors_lstm, params),
        expected,
    )


def test_products_in_bfloat16_change_the_gradient_by_its_rounding_only(params):
    narrow = authors_lstm.with_params(
        lambda params: jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    )
    expected, rounded = _gradient(authors_lstm, params), _gradient(narrow, params)
    for name, leaf in expected.items():
        error = np.linalg.norm(rounded[name] - leaf) / np.linalg.norm(leaf)
        assert 1e-5 < error < 0.02, (name, error)  # a bfloat16 is right to 0.4 %


def test_initial_weights():
    params = authors_lstm.init(jax.random.key(0), 50, 100, forget_bias=2.0)
    assert np.std(params["input"]) == pytest.approx(1, abs=0.02)
    assert np.std(params["mixed_input"]) == pytest.approx(1, abs=0.03)
    for name in ("recurrent", "mixed_recurrent", "mixed_bias"):
        assert 0.09 < np.abs(params[name]).max() <= 0.1
    np.testing.assert_array_equal(params["bias"].reshape(4, 100)[1], 2.0)
