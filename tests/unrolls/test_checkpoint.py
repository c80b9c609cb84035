"""`artbp.unroll(..., checkpoint=...)` against the plain unroll: same numbers, less memory."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import make_problem, relative_error

import artbp

pytestmark = pytest.mark.usefixtures("float64")

BATCH = 3


class Setup(NamedTuple):
    """What `artbp.unroll` is called with."""

    cell: Any
    params: Any
    carry: Any
    xs: Any
    initial_carry: Any
    options: dict[str, Any]


@functools.cache
def long_problem():
    return make_problem("rnn", 64, BATCH)


def make_setup(num_steps, *, ragged):
    """Row-wise gates and resets, an initial carry of its own, and ragged lengths if asked for."""
    problem = long_problem()
    rng = np.random.default_rng(5)
    options = {
        "gates": rng.uniform(0.5, 1.5, (num_steps, BATCH)),
        "resets": rng.random((num_steps, BATCH)) < 0.1,
    }
    if ragged:
        options["lengths"] = np.array([num_steps, (2 * num_steps + 1) // 3, num_steps // 3])
    initial = jax.tree.map(lambda leaf: leaf - 0.7, problem.carry)
    xs = problem.stream.xs[:num_steps]
    return Setup(problem.cell, problem.params, problem.carry, xs, initial, options)


@functools.cache
def values_and_gradients(num_steps, checkpoint, *, ragged, unroll=1):
    """Last carry, ys, and the cotangents of params, carry, xs and initial carry, jitted."""
    setup = make_setup(num_steps, ragged=ragged)

    def run(params, carry, xs, initial):
        return artbp.unroll(
            setup.cell,
            params,
            carry,
            xs,
            initial_carry=initial,
            unroll=unroll,
            checkpoint=checkpoint,
            **setup.options,
        )

    @jax.jit
    def both(primals, cotangents):
        out, pullback = jax.vjp(run, *primals)
        return out, pullback(cotangents)

    primals = (setup.params, setup.carry, setup.xs, setup.initial_carry)
    rng = np.random.default_rng(6)
    cotangents = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape), jax.eval_shape(run, *primals)
    )
    return both(primals, cotangents)


@pytest.mark.parametrize(
    ("num_steps", "checkpoint", "ragged", "unroll"),
    [
        (1, True, True, 1),
        (2, 5, True, 1),  # less than a block
        (3, 2, True, 1),  # one block and a remainder
        (17, 1, True, 1),
        (17, 5, True, 2),
        (17, True, True, 1),
        (64, True, False, 1),  # whole blocks only
        (64, 64, False, 1),  # one block
    ],
)
def test_values_and_gradients_are_those_of_the_plain_unroll(num_steps, checkpoint, ragged, unroll):
    expected = values_and_gradients(num_steps, None, ragged=ragged)
    found = values_and_gradients(num_steps, checkpoint, ragged=ragged, unroll=unroll)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def test_gates_at_the_block_boundaries_are_seen():
    """The control: the gradient that the test above compares depends on each of them."""
    setup = make_setup(17, ragged=False)

    @functools.partial(jax.jit, static_argnums=1)
    def gradient(gates, checkpoint):
        def total(carry):
            _, ys = artbp.unroll(
                setup.cell, setup.params, carry, setup.xs, gates=gates, checkpoint=checkpoint
            )
            return jnp.sum(ys[-1])

        return jax.grad(total)(setup.carry)

    gates = setup.options["gates"]
    twice = jax.tree.map(lambda leaf: 2 * leaf, gradient(gates, None))
    for last in (4, 9, 14):
        others = np.arange(17)[:, None] != last
        cut = gradient(np.where(others, gates, 0.0), 5)
        assert all(not leaf.any() for leaf in jax.tree.leaves(cut))
        doubled = gradient(np.where(others, gates, 2 * gates), 5)
        assert relative_error(doubled, twice) < 1e-12


def test_off_is_the_plain_unroll():
    """No block is run again: the program has no checkpoint in it."""
    setup = make_setup(5, ragged=True)

    def program(checkpoint):
        def run(xs):
            return artbp.unroll(
                setup.cell, setup.params, setup.carry, xs, checkpoint=checkpoint, **setup.options
            )

        return str(jax.make_jaxpr(run)(setup.xs))

    assert "prevent_cse" in program(2)
    assert "prevent_cse" not in program(False)
    assert program(False) == program(None)


def test_forward_mode_nested_gradients_and_vmap():
    setup = make_setup(7, ragged=True)
    tangents = jax.tree.map(jnp.cos, setup.params)

    def total(params, xs, checkpoint):
        _, ys = artbp.unroll(
            setup.cell, params, setup.carry, xs, checkpoint=checkpoint, **setup.options
        )
        return jnp.sum(ys**2)

    def forward(params, checkpoint):
        return jax.jvp(lambda p: total(p, setup.xs, checkpoint), (params,), (tangents,))[1]

    @functools.partial(jax.jit, static_argnums=0)
    def everything(checkpoint):
        many = jnp.stack([setup.xs, 2 * setup.xs, -setup.xs])
        return (
            jax.value_and_grad(forward)(setup.params, checkpoint),
            jax.vmap(lambda xs: jax.grad(total)(setup.params, xs, checkpoint))(many),
        )

    for ours, theirs in zip(everything(3), everything(None), strict=True):
        assert relative_error(ours, theirs) < 1e-12


@pytest.mark.parametrize("checkpoint", [1, 2])
def test_counters_keys_and_no_inputs(checkpoint):
    """Integer and key leaves cross the blocks; xs is None or holds keys; ys hold integers."""

    def cell(params, carry, key):
        if key is None:
            new_key, key = jax.random.split(carry["key"])
        else:
            new_key = carry["key"]
        state = jnp.tanh(params * carry["s"] + jax.random.normal(key, ()))
        carry = {"key": new_key, "n": carry["n"] + 1, "s": state}
        return carry, {"s": state, "n": carry["n"]}

    def total(params, xs, checkpoint):
        carry = {"key": jax.random.key(7), "n": jnp.int32(0), "s": jnp.float64(0.1)}
        carry, ys = artbp.unroll(cell, params, carry, xs, gates=gates, checkpoint=checkpoint)
        return jnp.sum(ys["s"]), (carry["n"], ys["n"], jax.random.key_data(carry["key"]))

    gates = jnp.linspace(0.5, 1.5, 5)
    compute = jax.value_and_grad(total, has_aux=True)
    for xs in (None, jax.random.split(jax.random.key(8), 5)):
        found = compute(jnp.float64(0.6), xs, checkpoint)
        expected = compute(jnp.float64(0.6), xs, None)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected)
        assert found[0][1][0] == 5


def test_no_steps_at_all():
    setup = make_setup(0, ragged=True)
    for checkpoint in (None, True, 3):

        def run(carry, checkpoint=checkpoint):
            return artbp.unroll(
                setup.cell, setup.params, carry, setup.xs, checkpoint=checkpoint, **setup.options
            )

        (after, ys), pullback = jax.vjp(run, setup.carry)
        assert ys.shape == (0, BATCH, 4)
        (cotangent,) = pullback((setup.carry, ys))
        for tree in (after, cotangent):
            jax.tree.map(np.testing.assert_array_equal, tree, setup.carry)


def temporaries(num_steps, checkpoint):
    """Bytes of scratch that XLA reserves for one gradient with respect to params."""
    problem = make_problem("rnn", 1, 8)

    def cell(params, carry, x):
        x, target = x
        carry, y = problem.cell(params, carry, x)
        return carry, problem.loss_fn(params, y, target)  # [B]: small ys

    def loss(params, xs, gates, resets, lengths):
        _, ys = artbp.unroll(
            cell,
            params,
            problem.carry,
            xs,
            gates=gates,
            resets=resets,
            lengths=lengths,
            checkpoint=checkpoint,
        )
        return jnp.sum(ys)

    shapes = (
        (
            jax.ShapeDtypeStruct((num_steps, 8, 3), float),
            jax.ShapeDtypeStruct((num_steps, 8), float),
        ),
        jax.ShapeDtypeStruct((num_steps, 8), float),
        jax.ShapeDtypeStruct((num_steps, 8), bool),
        jax.ShapeDtypeStruct((8,), int),
    )
    compiled = jax.jit(jax.grad(loss)).lower(problem.params, *shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.optimised
def test_memory_grows_like_the_square_root():
    growth = temporaries(4096, True) / temporaries(256, True)
    assert growth < 4.5  # √16, and what does not grow
    # The control: without checkpoints it grows like T.
    assert temporaries(4096, None) / temporaries(256, None) > 14


@pytest.mark.parametrize(
    ("checkpoint", "error", "message"),
    [
        (0, ValueError, r"checkpoint=0; expected True, False, None, or an integer ≥ 1"),
        (-3, ValueError, r"checkpoint=-3"),
        (2.0, TypeError, r"checkpoint=2\.0.*Pass True for blocks of √T steps"),
        ("auto", TypeError, r"checkpoint='auto'"),
        (np.ones(2, int), TypeError, r"checkpoint=array"),
    ],
)
def test_bad_values(checkpoint, error, message):
    setup = make_setup(4, ragged=False)
    with pytest.raises(error, match=message):
        artbp.unroll(setup.cell, setup.params, setup.carry, setup.xs, checkpoint=checkpoint)


def test_a_traced_checkpoint():
    setup = make_setup(4, ragged=False)

    @jax.jit
    def run(checkpoint):
        return artbp.unroll(setup.cell, setup.params, setup.carry, setup.xs, checkpoint=checkpoint)

    with pytest.raises(TypeError, match=r"is traced.*mark the argument.*static"):
        run(2)
