"""`artbp.scan`: `jax.lax.scan` with gates."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import artbp

STEPS, ROWS, HIDDEN = 7, 3, 4


def f_of(weights):
    """A step that closes over its weights; y is the carry times a number of its own."""

    def f(carry, x):
        hidden, count = carry
        hidden = jnp.tanh(hidden @ weights + x)
        return (hidden, count + 1), 2 * hidden

    return f


def data():
    weights = jax.nn.initializers.orthogonal()(jax.random.key(0), (HIDDEN, HIDDEN))
    init = (jax.random.normal(jax.random.key(1), (ROWS, HIDDEN)), jnp.zeros((), jnp.int32))
    return weights, init, jax.random.normal(jax.random.key(2), (STEPS, ROWS, HIDDEN))


def gradient(scan, weights, init, xs, **options):
    def loss(weights, hidden, xs):
        (hidden, count), ys = scan(f_of(weights), (hidden, init[1]), xs, **options)
        weights_of_ys = jnp.cos(jnp.arange(ys.size)).reshape(ys.shape)
        return jnp.sum(weights_of_ys * ys) + jnp.sum(hidden**2), count

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(weights, init[0], xs)


def test_it_takes_the_arguments_of_lax_scan():
    ours = list(inspect.signature(artbp.scan).parameters.values())
    theirs = list(inspect.signature(jax.lax.scan).parameters.values())[: len(ours) - 1]
    assert [(p.name, p.default, p.kind) for p in ours[:-1]] == [
        (p.name, p.default, p.kind) for p in theirs
    ]
    assert (ours[-1].name, ours[-1].kind) == ("gates", inspect.Parameter.KEYWORD_ONLY)


@pytest.mark.parametrize("gates", [None, "ones"])
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"unroll": 3}])
def test_without_gates_or_with_ones_it_is_lax_scan(gates, options, float64):
    weights, init, xs = data()
    expected = gradient(jax.lax.scan, weights, init, xs, **options)
    gates = None if gates is None else jnp.ones(STEPS)
    actual = gradient(artbp.scan, weights, init, xs, gates=gates, **options)
    chex.assert_trees_all_close(actual, expected, rtol=1e-13)


@pytest.mark.parametrize("shape", [(STEPS,), (STEPS, ROWS)])
def test_its_gates_are_those_of_unroll(shape, float64):
    weights, init, xs = data()
    gates = jax.random.uniform(jax.random.key(3), shape) * 2

    def unrolled(f, init, xs):
        return artbp.unroll(lambda params, carry, x: f(carry, x), (), init, xs, gates=gates)

    expected = gradient(unrolled, weights, init, xs)
    chex.assert_trees_all_close(
        gradient(artbp.scan, weights, init, xs, gates=gates), expected, rtol=1e-13
    )
    plain = gradient(jax.lax.scan, weights, init, xs)[1][0]
    assert float(jnp.abs(expected[1][0] - plain).max()) > 1e-2  # the gates matter


def test_backwards_in_time_a_gate_stays_with_its_step(float64):
    weights, init, xs = data()
    gates = jax.random.uniform(jax.random.key(3), (STEPS,)) * 2
    expected = gradient(artbp.scan, weights, init, xs[::-1], gates=gates[::-1])[1]

    def flipped(*args, **options):
        carry, ys = artbp.scan(*args, gates=gates, reverse=True, **options)
        return carry, ys[::-1]

    actual = gradient(flipped, weights, init, xs)[1]
    chex.assert_trees_all_close(actual, (*expected[:2], expected[2][::-1]), rtol=1e-13)


def test_without_xs():
    """The number of steps from `length` or from the gates; scalars in the carry."""
    double = lambda carry, x: (2.0 * carry, carry)  # noqa: E731
    carry, ys = artbp.scan(double, 1.0, length=3, gates=jnp.ones(3))
    np.testing.assert_array_equal(carry, 8.0)
    np.testing.assert_array_equal(ys, [1.0, 2.0, 4.0])
    slope = jax.grad(lambda x: artbp.scan(double, x, gates=jnp.array([1.0, 0.5, 3.0]))[0])(1.0)
    np.testing.assert_allclose(slope, 8 * 1.5)


def test_bad_gates():
    weights, init, xs = data()
    for gates, message in [
        (jnp.ones((STEPS, ROWS, 1)), r"expected \[T\] or \[T, B\]"),
        (jnp.ones((STEPS, ROWS + 1)), "disagree about the number of rows"),
        (jnp.ones(STEPS + 1), "different leading axis sizes"),
    ]:
        with pytest.raises(ValueError, match=message):
            artbp.scan(f_of(weights), init, xs, gates=gates)
