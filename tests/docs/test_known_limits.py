"""Each limit on the page of known limits names a test that exists; a few are pinned here."""

import ast
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import artbp

ROOT = Path(__file__).parents[2]
LIMITS = (ROOT / "docs" / "known_limits.md").read_text(encoding="utf-8")


def test_every_limit_names_a_test_that_exists():
    limits = [text for text in LIMITS.split("\n\n") if text.startswith("**")]
    assert len(limits) > 20
    for limit in limits:
        named = re.findall(r"`(tests/\S+\.py)::(\w+)`", limit)
        assert named, limit
        for path, name in named:
            module = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            functions = {one.name for one in module.body if isinstance(one, ast.FunctionDef)}
            assert name in functions and name.startswith("test_"), f"{path}::{name}"


@jax.custom_vjp
def double(x):
    return 2 * x


double.defvjp(lambda x: (2 * x, None), lambda _, cotangent: (2 * cotangent,))


def cell(params, carry, x):
    carry = double(params * carry) + x
    return carry, carry


def first_estimate(build, cell, **changes):
    estimator = build(cell, lambda params, y, target: y**2)
    params = jnp.asarray(0.25)
    state = estimator.init(params, jnp.zeros(1), rng_key=jax.random.key(0))
    return estimator.estimate(params, state._replace(**changes), artbp.Stream(jnp.ones((4, 1))))


@pytest.mark.parametrize("name", ["rtrl", "snap1", "uoro"])
def test_a_cell_with_a_custom_vjp_has_no_forward_mode(name):
    with pytest.raises((TypeError, ValueError)):
        first_estimate(getattr(artbp, name), cell)


def test_it_has_a_reverse_mode():
    def plain(params, carry, x):
        carry = 2 * params * carry + x
        return carry, carry

    ours, expected = (first_estimate(artbp.bptt, one)[0] for one in (cell, plain))
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_fused_unroll_has_no_forward_mode():
    params = artbp.cells.rnn.init(jax.random.key(0), 1, 2)
    xs, carry = jnp.ones((3, 1, 1)), jnp.zeros((1, 2))

    def last(xs):
        return artbp.fused_unroll(artbp.cells.rnn, params, carry, xs)[0]

    with pytest.raises(TypeError, match="jvp"):
        jax.jvp(last, (xs,), (xs,))


def test_the_count_of_all_steps_wraps():
    _, state, _ = first_estimate(artbp.bptt, cell, num_steps=jnp.int32(2**31 - 1))
    assert int(state.num_steps) == -(2**31) + 3


def test_a_global_that_changes_later_keeps_its_first_value():
    outside = {"factor": 1.0}

    def cell(params, carry, x):
        return carry, outside["factor"] * params * x

    estimator = artbp.tbptt(cell, lambda params, y, target: y, truncation_length=2)
    params, carry, found = jnp.asarray(1.0), jnp.zeros(2), []
    for outside["factor"] in (1.0, 5.0):
        state = estimator.init(params, carry, rng_key=jax.random.key(0))
        found.append(estimator.estimate(params, state, artbp.Stream(jnp.ones((2, 2))))[0])
    assert found == [4, 4]


def test_a_loss_that_compares_rows_meets_copies_behind_a_mask():
    """Row 2 does not count. In its place the loss gets row 0, whose value changes the mean."""

    def without_mean(params, y, target):
        return params * (y - jnp.mean(y)) ** 2

    def identity(params, carry, x):
        return carry, x

    xs, carry, params = jnp.array([[3.0, 5.0, 10.0]]), jnp.zeros(3), jnp.asarray(1.0)
    stream = artbp.Stream(xs, mask=jnp.array([[True, True, False]]))
    estimator = artbp.bptt(identity, without_mean)
    state = estimator.init(params, carry, rng_key=jax.random.key(0))
    grads, _, info = estimator.estimate(params, state, stream)
    of = lambda *rows: float(np.sum((np.array([3.0, 5.0]) - np.mean(rows)) ** 2))  # noqa: E731
    np.testing.assert_allclose([grads, info.loss_sum], of(3, 5, 3), rtol=1e-6)
    found = artbp.evaluate(identity, without_mean, params, carry, stream).loss_sum
    np.testing.assert_allclose(found, of(3, 5, 3), rtol=1e-6)
