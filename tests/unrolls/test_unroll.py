"""`artbp.unroll` against a plain Python loop, row by row and step by step."""

import functools
import os

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import (
    CELLS,
    bptt_gradient,
    gated_gradient,
    make_problem,
    relative_error,
    run_python,
)

import artbp

pytestmark = pytest.mark.usefixtures("float64")


def loop(cell, params, carry, xs, gates, resets, initial_carry, lengths):
    """The meaning of `unroll`, one row at a time, in Python, with stop_gradient for the gate."""
    num_steps, batch = jax.tree.leaves(xs)[0].shape[:2]
    carries, outputs = [], []
    for b in range(batch):

        def row(tree, b=b):
            return jax.tree.map(lambda leaf: leaf[b : b + 1], tree)

        state, ys = row(carry), []
        for t in range(num_steps):
            if t >= lengths[b]:
                ys.append(jnp.zeros_like(ys[0]))
                continue
            if resets[t, b]:
                state = row(initial_carry)
            state, y = cell(params, state, jax.tree.map(lambda leaf, t=t: row(leaf[t]), xs))
            fixed = jax.lax.stop_gradient(state)
            state = jax.tree.map(lambda s, f, g=gates[t, b]: f + g * (s - f), state, fixed)
            ys.append(y)
        carries.append(state)
        outputs.append(jnp.stack(ys))
    stack = jax.tree.map(lambda *rows: jnp.concatenate(rows), *carries)
    return stack, jnp.concatenate(outputs, axis=1)


@pytest.mark.parametrize("name", CELLS)
def test_gates_resets_and_lengths_match_the_loop(name):
    problem = make_problem(name, num_steps=7, batch=3)
    keys = jax.random.split(jax.random.key(3), 5)
    gates = jax.random.uniform(keys[0], (7, 3)) * 2
    resets = jax.random.bernoulli(keys[1], 0.3, (7, 3))
    lengths = jnp.array([7, 4, 2])
    initial = jax.tree.map(lambda leaf: leaf - 0.7, problem.carry)
    cotangent = jax.random.normal(keys[2], (7, 3, 4))

    def ours(params, carry, xs, initial):
        return artbp.unroll(
            problem.cell,
            params,
            carry,
            xs,
            gates=gates,
            resets=resets,
            initial_carry=initial,
            lengths=lengths,
        )

    def theirs(params, carry, xs, initial):
        return loop(problem.cell, params, carry, xs, gates, resets, initial, lengths)

    arguments = (problem.params, problem.carry, problem.stream.xs, initial)
    (carry, ys), pullback = jax.vjp(ours, *arguments)
    (carry_, ys_), pullback_ = jax.vjp(theirs, *arguments)
    np.testing.assert_allclose(ys, ys_, rtol=1e-12, atol=1e-14)
    assert relative_error(carry, carry_) < 1e-14
    carry_cotangent = jax.tree.map(lambda leaf: leaf * 0 + 0.9, carry)
    grads = pullback((carry_cotangent, cotangent))
    grads_ = pullback_((carry_cotangent, cotangent))
    for ours_, theirs_ in zip(grads, grads_, strict=True):
        assert relative_error(ours_, theirs_) < 1e-12


@pytest.mark.parametrize("name", CELLS)
def test_all_ones_is_bptt(name):
    problem = make_problem(name)
    expected = bptt_gradient(problem)
    gradient = jax.jit(lambda gates: gated_gradient(problem, gates))
    assert relative_error(gradient(jnp.ones(9)), expected) < 1e-13
    assert relative_error(gradient(None), expected) < 1e-13
    # The control: the gates are seen.
    assert relative_error(gradient(1.1 * jnp.ones(9)), expected) > 0.01


def test_forward_mode_agrees_with_reverse_mode():
    problem = make_problem("lstm")
    gates = jnp.linspace(0.2, 1.8, 9)

    def total(params):
        _, ys = artbp.unroll(problem.cell, params, problem.carry, problem.stream.xs, gates=gates)
        return jnp.sum(ys**2)

    tangents = jax.tree.map(jnp.cos, problem.params)
    _, forward = jax.jvp(total, (problem.params,), (tangents,))
    reverse = sum(
        jnp.vdot(a, b)
        for a, b in zip(
            jax.tree.leaves(jax.grad(total)(problem.params)), jax.tree.leaves(tangents), strict=True
        )
    )
    np.testing.assert_allclose(forward, reverse, rtol=1e-12)


def test_nan_in_the_padding_reaches_nothing():
    problem = make_problem("gru", num_steps=5)
    lengths = jnp.array([5, 3])
    xs = problem.stream.xs.at[3:, 1].set(jnp.nan)

    def total(params, xs):
        _, ys = artbp.unroll(problem.cell, params, problem.carry, xs, lengths=lengths)
        return jnp.sum(ys**2)

    grads = jax.grad(total)(problem.params, xs)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))
    assert relative_error(grads, jax.grad(total)(problem.params, problem.stream.xs)) == 0


@pytest.mark.parametrize(("lengths", "checkpoint"), [(None, None), ((7, 4, 2), 3)])
def test_reverse_is_a_flip_of_the_arrays(lengths, checkpoint):
    """In time, each row within its length; with NaN in the padding, and an input for all rows."""
    problem = make_problem("gru", num_steps=7, batch=3)
    rng, rows = np.random.default_rng(3), np.arange(3)
    gates, resets = 2 * rng.random((7, 3)), rng.random((7, 3)) < 0.3
    steps, ends = np.arange(7)[:, None], np.asarray(lengths or [7] * 3)
    flip = lambda leaf: leaf[np.where(steps < ends, ends - 1 - steps, steps), rows]  # noqa: E731
    scales = jnp.asarray(rng.random(7))
    cotangents = jnp.asarray(rng.standard_normal((3, 4))), jnp.asarray(rng.random((7, 3, 4)))
    options = {"lengths": None if lengths is None else ends}

    def cell(params, carry, x):
        x, scale = x
        return problem.cell(params, carry, x * jnp.broadcast_to(scale, 3)[:, None])

    def ours(params, carry, xs, initial):
        xs = jnp.where((steps < ends)[..., None], xs, jnp.nan)
        own = {"gates": gates, "resets": resets, "reverse": True, "checkpoint": checkpoint}
        arguments = params, carry, (xs, scales)
        return artbp.unroll(cell, *arguments, initial_carry=initial, **own, **options)

    def theirs(params, carry, xs, initial):
        own = {"gates": flip(gates), "resets": flip(resets)}
        arguments = params, carry, (flip(xs), flip(jnp.broadcast_to(scales[:, None], (7, 3))))
        carry, ys = artbp.unroll(cell, *arguments, initial_carry=initial, **own, **options)
        return carry, flip(ys)

    def outputs_and_gradients(run):
        at = problem.params, problem.carry, problem.stream.xs, problem.carry - 0.7
        outputs, pullback = jax.vjp(run, *at)
        return outputs, pullback(cotangents)

    found, expected = (jax.jit(outputs_and_gradients, static_argnums=0)(f) for f in (ours, theirs))
    chex.assert_trees_all_close(found, expected, rtol=1e-11, atol=1e-13)


def test_a_carry_with_counters_and_keys():
    """Integer and key leaves travel along, under gates and vmap."""

    def cell(params, carry, x):
        key, sub = jax.random.split(carry["key"])
        noise = jax.random.normal(sub, ())
        state = jnp.tanh(params * carry["s"] + x + 0.1 * noise)
        return {"key": key, "n": carry["n"] + 1, "s": state}, state

    def total(params, xs):
        carry = {"key": jax.random.key(7), "n": jnp.int32(0), "s": jnp.float64(0.1)}
        carry, ys = artbp.unroll(cell, params, carry, xs, gates=jnp.full(xs.shape[0], 0.5))
        return jnp.sum(ys), carry["n"]

    (_, count), grad = jax.value_and_grad(total, has_aux=True)(jnp.float64(0.6), jnp.ones(4))
    assert count == 4
    assert jnp.isfinite(grad)
    batched = jax.vmap(jax.grad(total, has_aux=True), (None, 0))(jnp.float64(0.6), jnp.ones((3, 4)))
    np.testing.assert_allclose(batched[0], np.full(3, grad))


def test_without_inputs_the_gates_give_the_length():
    carry, ys = artbp.unroll(
        lambda p, s, x: (p * s, s), jnp.float64(0.5), jnp.float64(1.0), None, gates=jnp.ones(3)
    )
    np.testing.assert_array_equal(ys, [1.0, 0.5, 0.25])
    assert carry == 0.125


def test_lists_may_hold_traced_numbers():
    """Gates, resets and lengths in Python lists are as in arrays, also under jit."""
    problem = make_problem(num_steps=4)

    @jax.jit
    def both(gate, flag, length):
        lists = {"gates": [gate, 0.0, gate, 1.0], "resets": [False, flag, flag, False]}
        lists["lengths"] = [4, length]
        run = functools.partial(artbp.unroll, problem.cell, problem.params, problem.carry)

        def gradient(given):
            return jax.grad(lambda xs: jnp.sum(run(xs, **given)[1]))(problem.stream.xs)

        mask = artbp.Stream(problem.stream.xs, lengths=lists["lengths"]).mask
        return gradient(lists), gradient({name: jnp.array(x) for name, x in lists.items()}), mask

    found, expected, mask = both(0.5, True, 2)
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found).max() > 0 and mask.sum(axis=0).tolist() == [4, 2]


def test_a_reset_defaults_to_zeros_and_cuts():
    def final(carry):
        resets = jnp.array([False, True, False])
        return artbp.unroll(lambda p, s, x: (s + x, s), None, carry, jnp.ones(3), resets=resets)[0]

    assert final(5.0) == 2.0
    assert jax.grad(final)(5.0) == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gates": np.ones(5)}, "disagree about the number of steps"),
        ({"gates": np.ones((9, 3))}, "disagree about the number of rows"),
        ({"gates": np.ones((9, 2, 1))}, r"expected \[T\] or \[T, B\]"),
        ({"lengths": np.ones(2)}, "expected integers"),
        ({"xs": None}, "number of steps is unknown"),
        ({"resets": np.zeros(9, bool), "initial_carry": np.zeros(3)}, "initial_carry"),
    ],
)
def test_bad_arguments(changes, message):
    problem = make_problem("rnn")
    arguments = {"xs": problem.stream.xs, **changes}
    with pytest.raises(ValueError, match=message):
        artbp.unroll(problem.cell, problem.params, problem.carry, **arguments)


@pytest.mark.parametrize(
    ("implementation", "num_words", "num_rows"),
    [("threefry2x32", 2, 2), ("threefry2x32", 2, 3), ("rbg", 4, 4)],
)
@pytest.mark.parametrize("by_row", ["lengths", "resets"])
def test_one_raw_key_is_not_taken_for_rows(implementation, num_words, num_rows, by_row):
    """Whatever the number of rows is. A number for each row, and a raw key for each, are fine."""
    problem = make_problem(num_steps=3, batch=num_rows)
    flags = np.zeros((3, num_rows), bool)
    options = {by_row: flags if by_row == "resets" else np.full(num_rows, 2)}

    def cell(params, carry, x):
        hidden, y = problem.cell(params, carry[0], x)
        return (hidden, carry[1]), y

    def run(shape):
        carry = (problem.carry, np.zeros(shape, np.uint32))
        run = functools.partial(artbp.unroll, cell, problem.params, carry, problem.stream.xs)
        return jax.eval_shape(lambda: run(**options)[0][1]).shape

    with jax.default_prng_impl(implementation):
        with pytest.raises(ValueError, match=r"carry\[1\] is uint32 .*a raw key.*typed key"):
            run((num_words,))
        for shape in {(num_rows, num_words), (num_rows,)} - {(num_words,)}:
            assert run(shape) == shape


def test_a_cell_that_changes_its_carry():
    with pytest.raises(ValueError, match=r"changed the carry.*dtype float64.*dtype float32"):
        artbp.unroll(
            lambda p, s, x: (s.astype(jnp.float32), s), None, jnp.zeros(2), jnp.zeros((3, 2))
        )
    with pytest.raises(ValueError, match="changed the structure"):
        artbp.unroll(lambda p, s, x: ((s, s), s), None, jnp.zeros(2), jnp.zeros((3, 2)))
    with pytest.raises(TypeError, match="pair"):
        artbp.unroll(lambda p, s, x: s, None, jnp.zeros(2), jnp.zeros((3, 2)))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("unroll", [artbp.unroll, artbp.fused_unroll])
def test_harmless_padding_stays_harmless(unroll, reverse):
    """A cell that takes the logarithm of its input: zeros in place of the padding would be −∞."""

    def total(p, padding):
        xs = jnp.full((4, 3), 2.0).at[2:, 1].set(padding).at[:, 2].set(padding)

        def cell(p, s, x):
            s = jnp.tanh(s + p * jnp.log(x))
            return s, s

        lengths = jnp.array([4, 2, 0])
        carry, ys = unroll(cell, p, jnp.zeros(3), xs, lengths=lengths, reverse=reverse)
        return jnp.sum(ys) + jnp.sum(carry)

    for padding in (2.0, 0.0, -1.0, jnp.nan):
        grad = jax.grad(total)(0.5, padding)
        np.testing.assert_allclose(grad, jax.grad(total)(0.5, 2.0), rtol=1e-14)


@pytest.mark.parametrize("unroll", [artbp.unroll, artbp.fused_unroll])
@pytest.mark.parametrize("resets", [None, jnp.arange(4) == 0])
def test_a_row_that_has_ended_goes_nowhere_new(unroll, resets):
    """One step beyond its length, row 0 would take the root of a negative number."""

    def cell(p, count, x):
        count = count + 1
        return count, p * jnp.sqrt(4.5 - count) + x

    def total(p):
        carry = jnp.array([3.0, 0.0])
        options = {"lengths": jnp.array([1, 4]), "resets": resets, "initial_carry": carry}
        return jnp.sum(unroll(cell, p, carry, jnp.zeros((4, 2)), **options)[1])

    expected = np.sqrt(0.5) + np.sum(np.sqrt(4.5 - np.arange(1, 5)))
    np.testing.assert_allclose(jax.grad(total)(2.0), expected, rtol=1e-12)


def test_outputs_without_rows_stay_without_rows():
    def cell(p, s, x):
        s = jnp.tanh(p * s + x)
        return s, {"state": s, "sum": jnp.sum(s)}

    def outputs(unroll, p, xs):
        return unroll(cell, p, jnp.ones((2, 3)), xs, lengths=jnp.array([2, 4]))[1]

    def gradients(unroll):
        def total(p, xs):
            return sum(jnp.sum(jnp.sin(y)) for y in outputs(unroll, p, xs).values())

        return jax.grad(total, argnums=(0, 1))(0.7, xs)

    xs = jax.random.normal(jax.random.key(0), (4, 2, 3))
    assert outputs(artbp.fused_unroll, 0.7, xs)["sum"].shape == (4,)
    chex.assert_trees_all_close(
        gradients(artbp.fused_unroll), gradients(artbp.unroll), rtol=1e-12, atol=1e-15
    )


def test_explicit_sharding():
    """Two virtual devices and the axis type that `jax.make_mesh` defaults to, for every kernel."""
    run_python(
        """
        import jax, jax.numpy as jnp
        from jax.sharding import NamedSharding, PartitionSpec
        import artbp
        from artbp import truncation
        from problems import make_problem, relative_error

        mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Explicit,))

        def shard(leaf, axis):
            spec = PartitionSpec(*[None] * axis, "rows")
            return jax.device_put(leaf, NamedSharding(mesh, spec))

        def gradients(problem, policy):
            estimator = artbp.artbp(
                problem.cell, problem.loss_fn, truncation.replay([13, 17]), policy=policy,
                block_size=4,
            )
            state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
            return estimator.estimate(problem.params, state, problem.stream)[0]

        def unrolled(problem):
            def total(params):
                lengths = jnp.array([30, 20, 10, 5])
                return jnp.sum(artbp.unroll(
                    problem.cell, params, problem.carry, problem.stream.xs, lengths=lengths
                )[1])
            return jax.grad(total)(problem.params)

        problem = make_problem("lstm", 30, batch=4, resets=True, mask=True)
        expected = [gradients(problem, p) for p in ("dynamic", "pow2")]
        expected.append(unrolled(problem))
        with jax.set_mesh(mesh):
            sharded = problem._replace(
                params=jax.device_put(problem.params, NamedSharding(mesh, PartitionSpec())),
                carry=jax.tree.map(lambda leaf: shard(leaf, 0), problem.carry),
                stream=jax.tree.map(lambda leaf: shard(leaf, 1), problem.stream),
            )
            found = [gradients(sharded, p) for p in ("dynamic", "pow2")]
            found.append(unrolled(sharded))
            for a, b in zip(found, expected, strict=True):
                assert relative_error(a, b) < 1e-5
        """,
        XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2",
    )


def test_resets_of_all_rows_refuse_a_raw_key_too():
    """It would become (0, 0), and the same noise would follow each reset, whatever the seed."""

    def cell(params, carry, x):
        hidden, key = carry
        return (hidden + params, jax.random.split(key)[0]), x

    xs, resets = jnp.ones((4, 2)), jnp.arange(4) == 2
    carry = jnp.zeros(2), jax.random.PRNGKey(5)
    with pytest.raises(ValueError, match="raw key"):
        artbp.unroll(cell, jnp.ones(()), carry, xs, resets=resets)
    estimator = artbp.bptt(cell, lambda params, y, target: y)
    state = estimator.init(jnp.ones(()), carry, rng_key=jax.random.key(0))
    with pytest.raises(ValueError, match="raw key"):
        estimator.estimate(jnp.ones(()), state, artbp.Stream(xs, resets=resets))
    lasting = estimator.init(
        jnp.ones(()), carry, rng_key=jax.random.key(0), initial_carry=(jnp.zeros(2), None)
    )
    estimator.estimate(jnp.ones(()), lasting, artbp.Stream(xs, resets=resets))
