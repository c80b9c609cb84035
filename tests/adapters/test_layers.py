"""The RNN layers of linen and nnx: `artbp.unroll` inside a model of the library."""

import chex
import jax
import jax.numpy as jnp
import pytest
from problems import relative_error

import artbp

STEPS, ROWS, INPUTS, HIDDEN = 6, 2, 3, 4


@pytest.fixture(autouse=True)
def promotion_of_flax(strict_promotion):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def inputs():
    xs = jax.random.normal(jax.random.key(0), (STEPS, ROWS, INPUTS), jnp.result_type(float))
    gates = 2 * jax.random.uniform(jax.random.key(1), (STEPS, ROWS), jnp.result_type(float))
    resets = jnp.zeros((STEPS, ROWS), bool).at[3, 1].set(True)
    return xs, gates, resets


def linen_layer(**options):
    """(params, `run(params, xs, ...) -> (carry, ys)`, the same by flax, the cell adapted)."""
    nn = pytest.importorskip("flax.linen")
    cell = nn.GRUCell(HIDDEN, param_dtype=jnp.result_type(float))
    layer = artbp.adapters.linen.RNN(cell, **options)
    params = layer.init(jax.random.key(2), inputs()[0])["params"]

    def run(params, xs, **arguments):
        return layer.apply({"params": params}, xs, **arguments)

    def by_flax(params, xs):
        theirs = nn.RNN(cell, time_major=True, return_carry=True)
        return theirs.apply({"params": params}, xs)

    adapted = artbp.adapters.linen.adapt(cell, inputs()[0][0], rng_key=jax.random.key(2))
    return params, run, by_flax, lambda params, c, x: adapted.cell(params["cell"], c, x)


def nnx_layer(**options):
    """The same for nnx."""
    nnx = pytest.importorskip("flax.nnx")
    dtype = {"param_dtype": jnp.result_type(float)}
    layer = artbp.adapters.nnx.RNN(
        nnx.GRUCell(INPUTS, HIDDEN, rngs=nnx.Rngs(2), **dtype), **options
    )
    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)

    def run(params, xs, **arguments):
        return nnx.merge(graphdef, params, rest)(xs, **arguments)

    def by_flax(params, xs):
        cell = nnx.merge(graphdef, params, rest).cell
        return nnx.RNN(cell, time_major=True, return_carry=True)(xs)

    def cell(params, carry, x):
        return nnx.merge(graphdef, params, rest).cell(carry, x)

    return params, run, by_flax, cell


layers = pytest.mark.parametrize("make", [linen_layer, nnx_layer])


def gradient(run, params, xs, **arguments):
    def loss(params):
        carry, ys = run(params, xs, **arguments)
        return jnp.sum(jnp.cos(jnp.arange(ys.size)).reshape(ys.shape) * ys) + jnp.sum(carry**2)

    return jax.jit(jax.grad(loss))(params)


@layers
def test_without_gates_it_is_the_layer_of_flax(make, float64):
    params, run, by_flax, _ = make()
    xs, _, _ = inputs()
    chex.assert_trees_all_close(run(params, xs), by_flax(params, xs), rtol=1e-13)
    expected = gradient(by_flax, params, xs)
    assert relative_error(gradient(run, params, xs), expected) < 1e-12


@layers
def test_gates_and_resets_are_those_of_unroll(make, float64):
    params, run, _, cell = make()
    xs, gates, resets = inputs()
    carry = jnp.full((ROWS, HIDDEN), 0.5)

    def unrolled(params, xs, carry=carry, **arguments):
        return artbp.unroll(cell, params, carry, xs, gates=gates, resets=resets, **arguments)

    gated = {"carry": carry, "gates": gates, "resets": resets}
    zeros = jnp.zeros_like(carry)
    expected = gradient(unrolled, params, xs, initial_carry=zeros)
    assert relative_error(gradient(run, params, xs, **gated), expected) < 1e-12
    # Another initial carry; and it is the first carry too, unless one is given.
    expected = gradient(unrolled, params, xs, initial_carry=carry)
    del gated["carry"]
    actual = gradient(run, params, xs, initial_carry=carry, **gated)
    assert relative_error(actual, expected) < 1e-12


@layers
def test_truncation_length_is_a_gate_of_zero_between_each_two_windows(make, float64):
    params, run, _, cell = make(truncation_length=2)
    xs, gates, _ = inputs()

    def unrolled(params, xs):
        carry = jnp.zeros((ROWS, HIDDEN))
        boundaries = jnp.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
        return artbp.unroll(cell, params, carry, xs, gates=boundaries)

    expected = gradient(unrolled, params, xs)
    assert relative_error(gradient(run, params, xs), expected) < 1e-12
    with pytest.raises(ValueError, match="expected one of them"):
        run(params, xs, gates=gates)
    with pytest.raises(ValueError, match="truncation_length=0"):
        _, run, _, _ = make(truncation_length=0)
        run(params, xs)


def test_dropout_in_a_linen_layer_takes_its_keys_from_xs():
    nn = pytest.importorskip("flax.linen")

    class Cell(nn.Module):
        @nn.compact
        def __call__(self, carry, x):
            return nn.GRUCell(HIDDEN)(carry, nn.Dropout(0.5, deterministic=False)(x))

        def initialize_carry(self, rng_key, shape):
            return jnp.zeros((*shape[:-1], HIDDEN))

    class Model(nn.Module):
        @nn.compact
        def __call__(self, xs):
            keys = jax.random.split(self.make_rng("dropout"), STEPS)
            return artbp.adapters.linen.RNN(Cell())((xs, keys))[1]

    xs, model = inputs()[0], Model()
    variables = model.init(jax.random.key(0), xs)
    first, same, other = (
        model.apply(variables, xs, rngs={"dropout": jax.random.key(i)}) for i in (0, 0, 1)
    )
    chex.assert_trees_all_equal(first, same)
    assert float(jnp.abs(first - other).max()) > 1e-3


@layers
def test_the_carry_of_a_truncated_layer_has_a_gradient(make):
    """The carry of a GRU is its last output, also where a window ends with the sequence."""
    params, run, _, _ = make(truncation_length=3)
    xs, _, _ = inputs()
    of_carry = jax.grad(lambda params: jnp.sum(run(params, xs)[0] ** 2))(params)
    of_output = jax.grad(lambda params: jnp.sum(run(params, xs)[1][-1] ** 2))(params)
    assert relative_error(of_carry, of_output) < 1e-6
