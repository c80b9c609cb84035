"""bfloat16 and float16: what steps add to a gradient is summed and divided in float32."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import relative_error

import artbp
from artbp import cells, truncation
from artbp.unrolls.narrow import summation

ROWS, UNITS = 32, 4
SUMMED = {
    "bptt": artbp.bptt,
    "tbptt": lambda *functions, **options: artbp.tbptt(
        *functions, truncation_length=256, **options
    ),
    "unbiased_tbptt": lambda *functions, **options: artbp.unbiased_tbptt(
        *functions, truncation.never(), truncation_length=128, stored_windows=2, **options
    ),
    "tbptt_k1_k2": lambda *functions, **options: artbp.tbptt_k1_k2(
        *functions, k1=256, k2=256, **options
    ),
}


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def cell(params, carry, x):
    """Weights, a bias, and a matrix that multiplies entry by entry."""
    params = cast(params, carry.dtype)
    drive = jnp.matmul(carry, params["weights"]) + x * params["scales"] + params["bias"][None]
    carry = jnp.tanh(drive)
    return carry, carry


def loss_fn(params, y, target):
    error = y + params["readout"].astype(y.dtype)[None] - target
    return jnp.sum(jnp.square(error.astype(jnp.float32)), axis=-1)


def problem(num_steps, dtype, params_dtype):
    params = {
        "weights": jnp.eye(UNITS) / 2,
        "scales": jnp.ones((ROWS, UNITS)),
        "bias": jnp.zeros(UNITS),
        "readout": jnp.zeros(UNITS),
    }
    xs = jax.random.uniform(jax.random.key(0), (num_steps, ROWS, UNITS)) / 2
    stream = artbp.Stream(xs.astype(dtype), jnp.zeros_like(xs, dtype))
    return cast(params, params_dtype), jnp.zeros((ROWS, UNITS), dtype), stream


def gradient_of_pass(estimator, params, carry, stream):
    """The sum of the estimates of a pass, in float32."""
    state, total = estimator.init(params, carry, rng_key=jax.random.key(0)), 0.0
    for _ in range(stream.num_steps):
        grads, state, info = estimator.estimate(params, state, stream)
        wide = cast(grads, jnp.float32)
        total = wide if total == 0.0 else jax.tree.map(jnp.add, total, wide)
        if info.end_of_stream:
            return total
    raise AssertionError("the pass does not end")


def largest_error(found, expected):
    return max(map(relative_error, jax.tree.leaves(found), jax.tree.leaves(expected)))


@pytest.mark.parametrize("params_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    "name, policy",
    [
        *itertools.product(("bptt", "tbptt"), ("dynamic", "pow2", "exact")),
        ("unbiased_tbptt", None),
        ("tbptt_k1_k2", None),
    ],
)
def test_sums_over_steps_are_not_bfloat16(name, policy, params_dtype):
    """8,192 terms of a bias: summed in bfloat16, they are half of their sum."""
    options = {"policy": policy} if policy else {}
    estimator = SUMMED[name](cell, loss_fn, **options)
    found = gradient_of_pass(estimator, *problem(256, jnp.bfloat16, params_dtype))
    expected = gradient_of_pass(estimator, *problem(256, jnp.float32, jnp.float32))
    assert largest_error(found, expected) < 0.006


@pytest.mark.parametrize("where", ["cell", "loss"])
@pytest.mark.parametrize("policy", ["dynamic", "pow2"])
@pytest.mark.parametrize("params_dtype", [jnp.float32, jnp.bfloat16])
def test_what_is_read_by_row_is_not_summed_in_bfloat16(params_dtype, policy, where):
    """A table of 400 embeddings, larger than the arrays of a step; most steps read the first."""

    def read(params, symbols, dtype):
        return params.astype(dtype)[symbols]  # the whole table is cast, as `flax.linen.Embed` does

    def cell(params, carry, x):
        carry = carry / 2 + (read(params, x, carry.dtype) if where == "cell" else 0)
        return carry, jnp.tanh(carry)

    def loss_fn(params, y, target):
        error = y - (read(params, target, y.dtype) if where == "loss" else 0)
        return jnp.sum(jnp.square(error.astype(jnp.float32) - 1), axis=-1)

    symbols = jnp.maximum(jax.random.randint(jax.random.key(0), (256, ROWS), -800, 400), 0)
    table = jax.random.normal(jax.random.key(1), (400, 4)) / 10

    def gradient(dtype, params_dtype):
        estimator = artbp.bptt(cell, loss_fn, policy=policy)
        params, carry = table.astype(params_dtype), jnp.zeros((ROWS, 4), dtype)
        stream = artbp.Stream(symbols, symbols)
        return gradient_of_pass(estimator, params, carry, stream)

    found, expected = gradient(jnp.bfloat16, params_dtype), gradient(jnp.float32, jnp.float32)
    assert relative_error(found, expected) < 0.01


@pytest.mark.parametrize("unroll", [artbp.unroll, artbp.fused_unroll])
def test_sums_of_unroll_are_not_bfloat16(unroll):
    def gradient(dtype):
        params, carry, stream = problem(256, dtype, jnp.float32)

        def loss(params):
            return jnp.sum(cast(unroll(cell, params, carry, stream.xs)[1], jnp.float32) ** 2)

        return jax.jit(jax.grad(loss))(params)

    found, expected = gradient(jnp.bfloat16), gradient(jnp.float32)
    del found["readout"], expected["readout"]
    assert largest_error(found, expected) < 0.006


@pytest.mark.parametrize("kind", ["derived", "written by hand", "cast in the cell"])
@pytest.mark.parametrize("name", list(SUMMED))
def test_a_sum_that_float16_does_not_hold_is_divided_first(name, kind):
    """The gradient fits into float16, the sum over steps and rows before the division does not."""
    if kind == "derived":
        rnn, own = lambda *arguments: cells.rnn(*arguments), lambda params: params
    elif kind == "written by hand":
        rnn, own = cells.rnn, lambda params: params
    else:
        rnn, own = cells.rnn.with_params(lambda params: cast(params, jnp.float16)), None
    params = cells.rnn.init(jax.random.key(0), UNITS, UNITS)
    xs = jax.random.normal(jax.random.key(1), (256, ROWS, UNITS))
    carry = jnp.zeros((ROWS, UNITS))

    def loss_fn(params, y, target):
        return jnp.sum(jnp.square(y.astype(jnp.float32) - 10.0), axis=-1)

    def gradient(cell, dtype, params):
        estimator = SUMMED[name](cell, loss_fn, normalizer=256.0 * ROWS)
        arguments = params, carry.astype(dtype), artbp.Stream(xs.astype(dtype))
        return gradient_of_pass(estimator, *arguments)

    expected = gradient(cells.rnn, jnp.float32, params)
    found = gradient(rnn, jnp.float16, params if own is None else cast(params, jnp.float16))
    assert largest_error(found, expected) < 0.02


@pytest.mark.parametrize("normalizer", [70_000, 70_000.0, 10**10, np.int64(10**10)])
@pytest.mark.parametrize("name", [*SUMMED, "rtrl"])
def test_a_normalizer_that_the_dtype_does_not_hold(name, normalizer):
    """float16 ends at 65,504, and int32 at 2³¹ − 1."""
    make = artbp.rtrl if name == "rtrl" else SUMMED[name]
    arguments = problem(4, jnp.float16, jnp.float16)
    found = gradient_of_pass(make(cell, loss_fn, normalizer=normalizer), *arguments)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    if normalizer < 10**6:  # beyond, float16 holds no quotient
        expected = gradient_of_pass(make(cell, loss_fn), *arguments)
        assert largest_error(jax.tree.map(lambda g: g * 70_000, found), expected) < 0.02


def test_uoro_in_float16_is_finite():
    """A gradient of 0 in the first step, and norms that are large for float16."""

    def cell(params, carry, x):
        carry = jnp.tanh(carry * params[None] + x)
        return carry, carry

    params, carry = jnp.full(16, 0.5, jnp.float16), jnp.zeros((4, 16), jnp.float16)
    xs = jax.random.normal(jax.random.key(0), (30, 4, 16), jnp.float16)
    estimator = artbp.uoro(cell, lambda params, y, target: jnp.sum(jnp.square(y - target), axis=-1))
    state = estimator.init(params, carry, rng_key=jax.random.key(1))
    for _ in range(8):
        grads, state, _ = estimator.estimate(params, state, artbp.Stream(xs, xs))
        assert jnp.isfinite(grads).all()


TABLE = jax.ShapeDtypeStruct((400, UNITS), jnp.bfloat16)
WIDE_TABLE = jax.ShapeDtypeStruct((400, UNITS), jnp.float32)
CARRY = jax.ShapeDtypeStruct((ROWS, UNITS), jnp.bfloat16)
ONE_CARRY = jax.ShapeDtypeStruct((UNITS,), jnp.bfloat16)
SYMBOLS = jax.ShapeDtypeStruct((ROWS,), jnp.int32)
READOUT = {
    "weights": jax.ShapeDtypeStruct((UNITS, 400), jnp.bfloat16),
    "bias": jax.ShapeDtypeStruct((400,), jnp.bfloat16),
}


def reading(table, carry, symbols):
    return carry + table[symbols], carry


def cast_whole(table, carry, symbols):
    return carry + table.astype(carry.dtype)[symbols], carry


def cast_rows(table, carry, symbols):
    return carry + table[symbols].astype(carry.dtype), carry


def in_a_loop(table, carry, symbols):
    return jax.lax.scan(lambda h, _: (h + table[symbols], None), carry, None, length=2)[0], carry


def row_by_row(table, carry, symbols):
    return jax.vmap(lambda h, x: h + table[x])(carry, symbols), carry


@jax.custom_vjp
def read(table, symbols):
    return table[symbols]


def read_back(residuals, cotangent):
    table, symbols = residuals
    return jnp.zeros_like(table).at[symbols].add(cotangent), None


read.defvjp(lambda table, symbols: (table[symbols], (table, symbols)), read_back)


def layers(weights, carry, x):
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), carry, weights)[0], carry


def cross_entropy(params, y, target):
    logits = y @ params["weights"] + params["bias"][None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, target)


def of_one_vector(params, carry, x):
    weights = params[: UNITS**2].reshape(UNITS, UNITS)
    return jnp.tanh(carry @ weights + params[UNITS**2 : UNITS**2 + UNITS][None]), carry


VECTOR = jax.ShapeDtypeStruct((10_000,), jnp.bfloat16)
WEIGHTS = jax.ShapeDtypeStruct((30, UNITS, UNITS), jnp.bfloat16)


@pytest.mark.parametrize(
    "function, arguments, expected",
    [
        (reading, (TABLE, CARRY, SYMBOLS), "one by one"),
        (cast_whole, (WIDE_TABLE, CARRY, SYMBOLS), "one by one"),
        (cast_rows, (WIDE_TABLE, CARRY, SYMBOLS), "copies"),
        (jax.jit(reading), (TABLE, CARRY, SYMBOLS), "one by one"),
        (jax.checkpoint(reading), (TABLE, CARRY, SYMBOLS), "one by one"),
        (in_a_loop, (TABLE, CARRY, SYMBOLS), "one by one"),
        (row_by_row, (TABLE, CARRY, SYMBOLS), "one by one"),
        (lambda p, c, x: (c + read(p, x), c), (TABLE, CARRY, SYMBOLS), "one by one"),
        (reading, (TABLE, ONE_CARRY, jax.ShapeDtypeStruct((), jnp.int32)), "one by one"),
        (reading, (jax.ShapeDtypeStruct((9, 4), jnp.bfloat16), CARRY, SYMBOLS), "copies"),
        (cross_entropy, (READOUT, CARRY, SYMBOLS), "copies"),
        (layers, (WEIGHTS, CARRY, CARRY), "copies"),
        (of_one_vector, (VECTOR, CARRY, CARRY), "one by one"),
    ],
)
def test_how_gradients_are_summed(function, arguments, expected):
    assert summation(function, *arguments) == expected
    wide = jax.tree.map(
        lambda one: one if one.dtype == jnp.int32 else one.update(dtype=jnp.float32), arguments
    )
    assert summation(function, *wide) == "shared"


def test_a_table_is_found_where_rows_are_split_over_devices():
    """There, programs print the types of their arrays in other ways."""
    mesh = jax.make_mesh((1,), ("rows",), (jax.sharding.AxisType.Auto,))
    found = []

    def on_a_device(table, carry, symbols):
        found.append(summation(reading, table, carry, symbols))
        return carry

    specs = {"in_specs": (jax.P(), jax.P("rows"), jax.P("rows")), "out_specs": jax.P("rows")}
    jax.eval_shape(jax.shard_map(on_a_device, mesh=mesh, **specs), TABLE, CARRY, SYMBOLS)
    assert found[0] == "one by one"


def test_evaluation_needs_no_derivative_in_bfloat16():
    def loss_fn(params, y, target):
        def halve(total):
            return total / 2

        return jax.lax.while_loop(lambda total: jnp.max(total) > 1, halve, jnp.sum(y, axis=-1))

    params, carry, stream = problem(16, jnp.bfloat16, jnp.bfloat16)
    found = artbp.evaluate(cell, loss_fn, params, carry, stream)
    assert found.num_losses == 16 * ROWS and jnp.isfinite(found.loss_sum)
