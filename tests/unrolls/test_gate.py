"""The gate: value untouched, cotangent scaled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import artbp


def test_value_is_exact_and_cotangent_is_scaled(float64):
    x = jax.random.normal(jax.random.key(0), (5, 3)) * 1e8
    value, pullback = jax.vjp(lambda x: artbp.gate(x, 1.7), x)
    np.testing.assert_array_equal(value, x)
    np.testing.assert_array_equal(pullback(jnp.ones_like(x))[0], np.full(x.shape, 1.7))


def test_forward_mode_and_a_traced_factor(float64):
    x = jnp.arange(3.0)
    _, tangent = jax.jit(lambda g: jax.jvp(lambda x: artbp.gate(x, g), (x,), (x,)))(2.5)
    np.testing.assert_allclose(tangent, 2.5 * x)


def test_factor_by_row():
    x = jnp.ones((2, 3))
    (cotangent,) = jax.vjp(lambda x: artbp.gate(x, jnp.array([0.0, 2.0])), x)[1](x)
    np.testing.assert_array_equal(cotangent, [[0.0] * 3, [2.0] * 3])


def test_a_cut_stops_an_overflowed_cotangent():
    (cotangent,) = jax.vjp(lambda x: artbp.gate(x, 0.0), jnp.ones(2))[1](jnp.full(2, jnp.inf))
    np.testing.assert_array_equal(cotangent, [0.0, 0.0])


def test_integer_and_key_leaves_pass_through():
    carry = {"count": jnp.arange(2), "key": jax.random.key(0), "x": jnp.ones(2)}
    gated = artbp.gate(carry, jnp.float32(0.5))
    assert gated["count"] is carry["count"]
    assert gated["key"] is carry["key"]


@pytest.mark.parametrize("steps", [200])
def test_gates_of_a_bfloat16_carry_are_taken_in_float32(steps):
    """1/(1 − 1/16) is not a bfloat16: rounded first, two hundred of them would drift far away."""
    factor = jnp.float32(1 / (1 - 1 / 16))
    rounded = float(jnp.bfloat16(factor)) ** steps / float(factor) ** steps
    assert abs(rounded - 1) > 0.1  # the control: what rounding the gate would do
    x = jnp.ones((64,), jnp.bfloat16) * jnp.linspace(1, 2, 64).astype(jnp.bfloat16)
    (once,) = jax.vjp(lambda x: artbp.gate(x, factor), x)[1](x)
    assert once.dtype == jnp.bfloat16
    wanted = (x.astype(jnp.float32) * factor).astype(jnp.bfloat16)
    np.testing.assert_array_equal(once.astype(jnp.float32), wanted.astype(jnp.float32))


def test_values_that_are_not_finite_pass_unchanged():
    x = jnp.array([-jnp.inf, jnp.inf, jnp.nan, 1.0])
    np.testing.assert_array_equal(artbp.gate(x, 1.5), x)
    np.testing.assert_array_equal(jax.grad(lambda x: artbp.gate(x, 1.5)[3])(x), [0, 0, 0, 1.5])


def test_second_derivatives(float64):
    """∂²/∂x² of gate(x³, g) is g·6x by the rule for the gate's own derivative."""
    second = jax.grad(jax.grad(lambda x: artbp.gate(x**3, 0.5)))(2.0)
    np.testing.assert_allclose(second, 0.5 * 12.0)
