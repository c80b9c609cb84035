"""The reference cells against their equations, and how they start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import CELLS

import artbp
from artbp import cells

pytestmark = pytest.mark.usefixtures("float64")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def start(name, **options):
    cell = getattr(cells, name)
    params = cell.init(jax.random.key(0), 5, 3, dtype=jnp.float64, **options)
    carry = jax.tree.map(
        lambda leaf: jax.random.normal(jax.random.key(1), leaf.shape), cell.initial_carry(params, 2)
    )
    return cell, params, carry, jax.random.normal(jax.random.key(2), (2, 5))


@pytest.mark.parametrize(("name", "activation"), [("linear", lambda x: x), ("rnn", np.tanh)])
def test_linear_and_rnn(name, activation):
    cell, params, carry, x = start(name, spectral_radius=0.9)
    new, y = cell(params, carry, x)
    expected = activation(x @ params["input"] + carry @ params["recurrent"] + params["bias"][None])
    np.testing.assert_allclose(new, expected, rtol=1e-12)
    np.testing.assert_array_equal(new, y)
    radius = np.linalg.norm(params["recurrent"], 2)
    np.testing.assert_allclose(radius, 0.9, rtol=1e-12)


def test_lstm():
    cell, params, carry, x = start("lstm", forget_bias=1.5)
    new, y = cell(params, carry, x)
    gates = x @ params["input"] + carry.hidden @ params["recurrent"] + params["bias"][None]
    i, f, g, o = np.split(np.asarray(gates), 4, axis=1)
    memory = sigmoid(f) * carry.memory + sigmoid(i) * np.tanh(g)
    np.testing.assert_allclose(new.memory, memory, rtol=1e-12)
    np.testing.assert_allclose(new.hidden, sigmoid(o) * np.tanh(memory), rtol=1e-12)
    np.testing.assert_array_equal(new.hidden, y)
    np.testing.assert_array_equal(params["bias"], np.repeat([0, 1.5, 0, 0], 3))


def test_gru():
    cell, params, h, x = start("gru")
    params["candidate_bias"] = jnp.linspace(-1, 1, 3)
    new, y = cell(params, h, x)
    a = np.split(np.asarray(x @ params["input"]), 3, axis=1)
    b = np.split(np.asarray(h @ params["recurrent"]), 3, axis=1)
    r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
    n = np.tanh(a[2] + r * (b[2] + params["candidate_bias"][None]))
    np.testing.assert_allclose(new, (1 - z) * n + z * h, rtol=1e-12)
    np.testing.assert_array_equal(new, y)


@pytest.mark.parametrize("name", CELLS)
def test_integer_inputs_are_one_hot_vectors(name):
    cell, params, carry, _ = start(name)
    symbols = jnp.array([4, -1])  # outside [0, 5): no symbol, and a vector of zeros
    by_symbol = cell(params, carry, symbols)
    by_vector = cell(params, carry, jax.nn.one_hot(symbols, 5, dtype=jnp.float64))
    for a, b in zip(jax.tree.leaves(by_symbol), jax.tree.leaves(by_vector), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtypes_are_kept(name, dtype):
    cell = getattr(cells, name)
    params = cell.init(jax.random.key(0), 5, 3, dtype=dtype)
    carry, y = cell(params, cell.initial_carry(params, 2), jnp.array([1, 2]))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, carry, y))} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("name", CELLS)
def test_what_a_loop_stores_is_not_bfloat16_on_a_cpu(name):
    """Weights are bfloat16 and the carry is not, as for `model.products=bfloat16` of Penn Treebank.

    XLA on a CPU would convert the whole buffer of residuals at every step.
    """
    cell = getattr(cells, name)
    params = cell.init(jax.random.key(0), 5, 3, dtype=jnp.bfloat16)
    carry = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), cell.initial_carry(params, 2))
    recurrence = cell.recurrence(params)
    *_, residuals = recurrence.step(carry, recurrence.project(jnp.ones((2, 5), jnp.bfloat16)))
    stored = jax.tree.leaves((residuals, recurrence.residuals_like(carry)))
    is_cpu = jax.default_backend() == "cpu"
    assert all(leaf.dtype == jnp.float32 for leaf in stored) or not is_cpu


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_recurrent_blocks_start_orthogonal(name):
    _, params, _, _ = start(name)
    for block in np.split(np.asarray(params["recurrent"]), params["recurrent"].shape[1] // 3, 1):
        np.testing.assert_allclose(block.T @ block, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("hidden_size", [160, 161, 512])
@pytest.mark.parametrize(("dtype", "error"), [("float64", 1e-9), ("bfloat16", 1e-2)])
def test_the_backward_product_at_sizes_that_take_it_differently(hidden_size, dtype, error):
    """See `artbp.cells.affine_recurrence`: several products, one with a copy of Uᵀ, one with U."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = {"input": (5, 4 * hidden_size), "recurrent": (hidden_size, 4 * hidden_size)}
    params = {
        name: (0.1 * jax.random.normal(key, shape)).astype(dtype)
        for (name, shape), key in zip(shapes.items(), keys[:2], strict=True)
    }
    params["bias"] = jnp.zeros(4 * hidden_size, dtype)
    exact = jax.tree.map(lambda leaf: leaf.astype("float64"), params)
    carry, symbols = cells.lstm.initial_carry(exact, 2), jnp.array([[1, 2], [0, 4], [3, 3]])
    cotangents = jax.random.normal(keys[2], (3, 2, hidden_size))

    def gradient(unroll, params, carry):
        def total(params):
            _, hidden = unroll(cells.lstm, params, carry, symbols)
            return jnp.sum(hidden * cotangents.astype(hidden.dtype))

        return jax.jit(jax.grad(total))(params)

    expected = gradient(artbp.unroll, exact, carry)
    if dtype == "bfloat16":
        carry = jax.tree.map(lambda leaf: leaf.astype("float32"), carry)
    for name, leaf in gradient(artbp.fused_unroll, params, carry).items():
        distance = jnp.linalg.norm(leaf.astype("float64") - expected[name])
        assert distance <= error * jnp.linalg.norm(expected[name]), name


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("largest", [0.999, 1.0])
def test_lru_has_finite_params_in_narrow_dtypes(dtype, largest):
    """Moduli close to 1 are rounded to 1 there, and log(1 − 1) is not finite."""
    options = {"smallest": 0.99, "largest": largest, "dtype": dtype}
    params = cells.lru.init(jax.random.key(0), 4, 256, **options)
    for leaf in jax.tree.leaves(params):
        assert leaf.dtype == dtype and jnp.isfinite(leaf).all()
