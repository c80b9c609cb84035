"""`fused_unroll` against `unroll`, its slow and obvious twin, and both against float64."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from problems import CELLS

import artbp
from artbp import cells
from artbp.cells import affine_recurrence

LENGTHS = [1, 2, 3, 17, 64, 257]
DERIVED = {
    name: (lambda cell: lambda params, carry, x: cell(params, carry, x))(getattr(cells, name))
    for name in ("lstm", "gru", "rnn")
}


def problem(cell, num_steps, dtype, *, symbols=False, rows=3, inputs=4, hidden=5):
    """Arguments and a random cotangent; the recurrence neither vanishes nor explodes."""
    keys = jax.random.split(jax.random.key(num_steps), 9)

    def normal(key, *shape):
        return jax.random.normal(key, shape, jnp.float64).astype(dtype)

    def parameter(leaf):
        if leaf.ndim == 1:  # biases start at zero, where a forgotten one would not be seen
            leaf = leaf + 0.3 * jnp.cos(jnp.arange(leaf.size))
        return leaf.astype(dtype)

    params = jax.tree.map(parameter, cell.init(keys[0], inputs, hidden, dtype=jnp.float64))
    like = cell.initial_carry(params, rows)
    carry = jax.tree.map(lambda leaf: normal(keys[1], *leaf.shape) * 0.5, like)
    initial_carry = jax.tree.map(lambda leaf: normal(keys[2], *leaf.shape) * 0.5, like)
    xs = normal(keys[3], num_steps, rows, inputs)
    if symbols:
        xs = jax.random.randint(keys[3], (num_steps, rows), 0, inputs, jnp.int32)
    options = {
        "gates": jax.random.uniform(keys[4], (num_steps, rows), jnp.float64, 0.5, 1.5)
        .astype(dtype)
        .at[num_steps // 2]
        .set(0),
        "resets": jax.random.bernoulli(keys[5], 0.1, (num_steps, rows)),
        "initial_carry": initial_carry,
        "lengths": jnp.array([num_steps, (num_steps + 1) // 2, max(num_steps - 1, 0)], jnp.int32),
    }
    cotangent = (
        jax.tree.map(lambda leaf: normal(keys[6], *leaf.shape), like),
        normal(keys[7], num_steps, rows, hidden),
    )
    return params, carry, xs, options, cotangent


def pull_back(unroll, cell, params, carry, xs, options, cotangent):
    """(outputs, gradients with respect to all that is differentiable)."""
    options = dict(options)
    initial_carry = options.pop("initial_carry")
    floats = jnp.issubdtype(xs.dtype, jnp.floating)

    def function(params, carry, initial_carry, xs):
        return unroll(cell, params, carry, xs, initial_carry=initial_carry, **options)

    if not floats:
        symbols = xs
        outputs, pullback = jax.vjp(lambda *a: function(*a, symbols), params, carry, initial_carry)
    else:
        outputs, pullback = jax.vjp(function, params, carry, initial_carry, xs)
    return outputs, pullback(cotangent)


def compiled(unroll, cell, arguments):
    """`pull_back` as one program: quicker to compile than its operations one by one."""
    return jax.jit(lambda: pull_back(unroll, cell, *arguments))()


def relative_errors(tree, truth):
    """Per leaf ‖leaf − truth‖ / ‖truth‖."""

    def error(leaf, true):
        leaf, true = np.asarray(leaf, np.float64), np.asarray(true, np.float64)
        return np.linalg.norm(leaf - true) / max(np.linalg.norm(true), 1e-300)

    return jax.tree.leaves(jax.tree.map(error, tree, truth))


PATHS = {  # the cell for the unroll, that for the fused unroll, whether inputs are symbols
    "lstm": (cells.lstm, cells.lstm, False),
    "gru": (cells.gru, cells.gru, False),
    "rnn": (cells.rnn, cells.rnn, False),
    "linear": (cells.linear, cells.linear, False),
    "derived lstm": (cells.lstm, DERIVED["lstm"], False),
    "lstm of symbols": (cells.lstm, cells.lstm, True),
    "gru of symbols": (cells.gru, cells.gru, True),
    "derived gru of symbols": (cells.gru, DERIVED["gru"], True),
    "derived rnn": (cells.rnn, DERIVED["rnn"], False),
}
# Each backward pass written by hand, and the linear cell's, at every length; where only the input
# differs, or the backward pass is derived, fewer. The longest one once by hand and once derived.
FURTHER = [(path, num_steps) for path in PATHS for num_steps in (2, 3, 64)]
FURTHER += [(path, 257) for path in ("gru", "rnn", "linear")]
CASES = [
    pytest.param(path, num_steps, marks=[pytest.mark.slow] if (path, num_steps) in FURTHER else [])
    for i, path in enumerate(PATHS)
    for num_steps in (LENGTHS if i < 4 else [1, 257] if i == 4 else [1, 17])
]


def arguments_of(path, num_steps):
    """The arguments of a case, rounded to float32, in float32 and in float64.

    The truth is at the rounded arguments: what is compared is arithmetic.
    """
    reference, _, symbols = PATHS[path]
    arguments = problem(reference, num_steps, jnp.float64, symbols=symbols)
    narrow = jax.tree.map(
        lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, arguments
    )
    wide = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, narrow)
    return narrow, wide


@functools.cache
def truth_of(path, num_steps):
    """The unroll in float64."""
    return compiled(artbp.unroll, PATHS[path][1], arguments_of(path, num_steps)[1])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("path", "num_steps"), CASES)
def test_equals_the_unroll(path, num_steps):
    """To 1e-12 in float64."""
    _, wide = arguments_of(path, num_steps)
    truth = truth_of(path, num_steps)
    exact = compiled(artbp.fused_unroll, PATHS[path][1], wide)
    assert jax.tree.structure(exact) == jax.tree.structure(truth)
    for error in relative_errors(exact, truth):
        assert error < 1e-12


# Rounding as users compile at one length of each path.
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("path", "num_steps"),
    [
        pytest.param(
            *case.values,
            marks=[*case.marks, *([pytest.mark.optimised] if case.values[1] == 17 else [])],
        )
        for case in CASES
    ],
)
def test_rounds_as_the_unroll_does(path, num_steps):
    """In float32, per leaf: at most twice the error of autodiff, plus one unit of rounding."""
    cell = PATHS[path][1]
    narrow, _ = arguments_of(path, num_steps)
    truth = truth_of(path, num_steps)
    ours = relative_errors(compiled(artbp.fused_unroll, cell, narrow), truth)
    theirs = relative_errors(compiled(artbp.unroll, cell, narrow), truth)
    for our_error, their_error in zip(ours, theirs, strict=True):
        assert our_error < 2 * their_error + 1.2e-7
        assert our_error < 1e-5


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CELLS)
def test_more_symbols_than_units(name):
    """The gradient of the input weights is then scattered, not a product with one-hot vectors."""
    cell = getattr(cells, name)
    arguments = problem(cell, 17, jnp.float64, symbols=True, inputs=9, hidden=5)
    ours = compiled(artbp.fused_unroll, cell, arguments)
    for error in relative_errors(ours, compiled(artbp.unroll, cell, arguments)):
        assert error < 1e-12


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "of_weights", "of_carry"),
    [
        *[(name, jnp.bfloat16, jnp.bfloat16) for name in CELLS],
        *[("lstm", jnp.bfloat16, jnp.float32), ("lstm", jnp.float32, jnp.bfloat16)],
    ],
)
def test_narrow_weights_and_carries(name, of_weights, of_carry):
    """The types of the unroll, and as close to float64 as three bfloat16 digits can be."""
    cell = getattr(cells, name)

    def cast(tree, dtype):
        return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == jnp.float64 else x, tree)

    params, carry, xs, options, cotangent = problem(cell, 17, jnp.float64)
    gates = {"gates": options["gates"].astype(jnp.float32)}
    params, xs = cast((params, xs), of_weights)
    carry, options, cotangent = cast((carry, options, cotangent), of_carry)
    arguments = (params, carry, xs, options | gates, cotangent)
    ours = compiled(artbp.fused_unroll, cell, arguments)
    theirs = compiled(artbp.unroll, cell, arguments)
    assert jax.tree.map(jnp.result_type, ours) == jax.tree.map(jnp.result_type, theirs)
    exact = jax.tree.map(
        lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, arguments
    )
    truth = compiled(artbp.unroll, cell, exact)
    for error in relative_errors(ours, truth):
        assert error < 0.03


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("without", ["gates", "resets", "lengths"])
def test_gates_resets_and_lengths_are_seen(without):
    """The control: without one of them the gradient is another."""
    params, carry, xs, options, cotangent = problem(cells.lstm, 17, jnp.float64)
    arguments = (params, carry, xs, {**options, without: None}, cotangent)
    changed = compiled(artbp.fused_unroll, cells.lstm, arguments)
    original = compiled(artbp.fused_unroll, cells.lstm, (params, carry, xs, options, cotangent))
    if without == "resets":
        changed = changed[0], (*changed[1][:2], changed[1][0], *changed[1][3:])
        original = original[0], (*original[1][:2], original[1][0], *original[1][3:])
    assert max(relative_errors(changed, original)) > 1e-3
    expected = compiled(artbp.unroll, cells.lstm, arguments)[1][0]
    for error in relative_errors(changed[1][0], expected):
        assert error < 1e-12


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("cell", "without"), [(cells.rnn, "nothing"), (DERIVED["rnn"], "lengths")])
def test_reverse_equals_the_unroll(cell, without):
    *arguments, options, cotangent = problem(cells.rnn, 17, jnp.float64)
    options = {**options, "reverse": True, **({} if without == "nothing" else {without: None})}
    arguments = *arguments, options, cotangent
    ours = compiled(artbp.fused_unroll, cell, arguments)
    for error in relative_errors(ours, compiled(artbp.unroll, cell, arguments)):
        assert error < 1e-12


def test_reverse_with_lengths_needs_inputs_by_row():
    carry, xs = jnp.zeros((2, 3)), (jnp.zeros((4, 2, 3)), jnp.zeros(4))
    cell = lambda params, carry, x: (carry + x[0] + x[1], carry)  # noqa: E731
    with pytest.raises(ValueError, match="rows begin at different steps"):
        artbp.fused_unroll(cell, (), carry, xs, lengths=jnp.array([4, 2]), reverse=True)
    for shape in ((), (1,), (3,)):
        shared = lambda params, carry, x, s=shape: (carry + x, jnp.ones(s) * jnp.sum(carry))  # noqa: E731
        with pytest.raises(ValueError, match="without rows in xs or in the output"):
            artbp.fused_unroll(shared, (), carry, xs[0], lengths=jnp.array([4, 2]), reverse=True)


@pytest.mark.usefixtures("float64")
def test_symbols_of_eight_bits():
    """No symbol above 255 gets a gradient from one below."""
    params = cells.rnn.init(jax.random.key(0), 300, 300, dtype=jnp.float64)
    carry, xs = cells.rnn.initial_carry(params, 2), jnp.array([[0, 2], [44, 255]], jnp.uint8)

    def gradient(unroll):
        return jax.grad(lambda p: jnp.sum(unroll(cells.rnn, p, carry, xs)[1]))(params)

    assert max(relative_errors(gradient(artbp.fused_unroll), gradient(artbp.unroll))) < 1e-12


@pytest.mark.usefixtures("float64")
def test_padding_has_no_influence():
    params, carry, xs, options, cotangent = problem(cells.lstm, 17, jnp.float64)
    beyond = jnp.arange(17, dtype=jnp.int32)[:, None] >= options["lengths"][None, :]
    for cell in (cells.lstm, DERIVED["lstm"]):
        poisoned = jnp.where(beyond[..., None], jnp.nan, xs)
        run = jax.jit(
            lambda xs, cell=cell: pull_back(
                artbp.fused_unroll, cell, params, carry, xs, options, cotangent
            )
        )
        ours, clean = run(poisoned), run(xs)
        jax.tree.map(np.testing.assert_array_equal, ours, clean)


@pytest.mark.usefixtures("float64")
def test_rows_that_interact():
    """A cell in which rows see each other's mean: a row that has ended sends nothing to others."""

    def cell(params, carry, x):
        carry = cells.rnn(params, carry, x)[0]
        carry = carry + jnp.mean(carry, axis=0, keepdims=True)
        return carry, carry

    params, carry, xs, options, cotangent = problem(cells.rnn, 17, jnp.float64)
    arguments = (params, carry, xs, options, cotangent)
    ours = compiled(artbp.fused_unroll, cell, arguments)
    for error in relative_errors(ours, compiled(artbp.unroll, cell, arguments)):
        assert error < 1e-12


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_under_vmap_and_as_a_hessian_vector_product(name):
    cell = getattr(cells, name)
    params, carry, xs, options, _ = problem(cell, 5, jnp.float64)
    direction = jax.tree.map(jnp.sin, params)

    def loss(unroll, params, carry):
        return jnp.sum(jnp.sin(unroll(cell, params, carry, xs, **options)[1]))

    def product(unroll):
        gradient = jax.grad(loss, argnums=1)
        return jax.jvp(lambda p: gradient(unroll, p, carry), (params,), (direction,))[1]

    product = jax.jit(product, static_argnums=0)
    for error in relative_errors(product(artbp.fused_unroll), product(artbp.unroll)):
        assert error < 1e-12

    scales = jnp.array([0.5, 1.0, 2.0])

    def gradient(unroll, scale):
        scaled = jax.tree.map(lambda leaf: scale * leaf, params)
        return jax.grad(loss, argnums=1)(unroll, scaled, carry)

    ours = jax.jit(jax.vmap(lambda scale: gradient(artbp.fused_unroll, scale)))(scales)
    theirs = jax.jit(jax.vmap(lambda scale: gradient(artbp.unroll, scale)))(scales)
    for error in relative_errors(ours, theirs):
        assert error < 1e-12


@pytest.mark.usefixtures("float64")
def test_parameters_picked_out_of_a_tree():
    params, carry, xs, options, cotangent = problem(cells.lstm, 17, jnp.float64)
    tree = {"cell": params, "readout": jnp.ones(3)}
    tied = cells.lstm.with_params(lambda p: {**p["cell"], "bias": jnp.sin(p["cell"]["bias"])})
    ours = compiled(artbp.fused_unroll, tied, (tree, carry, xs, options, cotangent))
    theirs = compiled(artbp.unroll, tied, (tree, carry, xs, options, cotangent))
    for error in relative_errors(ours, theirs):
        assert error < 1e-12


def test_bad_input():
    params = cells.lstm.init(jax.random.key(0), 2, 3)
    carry = cells.lstm.initial_carry(params, 1)
    xs = jnp.zeros((4, 1, 2))
    with pytest.raises(ValueError, match="at least one step"):
        artbp.fused_unroll(cells.lstm, params, carry, xs[:0])
    with pytest.raises(ValueError, match="disagree about the number of steps"):
        artbp.fused_unroll(cells.lstm, params, carry, xs, gates=jnp.ones(3))

    def loss(scale):
        cell = lambda params, carry, x: cells.lstm(params, carry, scale * x)  # noqa: E731
        return jnp.sum(artbp.fused_unroll(cell, params, carry, xs)[1])

    with pytest.raises(ValueError, match="closes over a traced array"):
        jax.grad(loss)(1.0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("large", [affine_recurrence._LARGE, 3])
def test_gradients_can_be_exported(dtype, large, monkeypatch):
    """Those of bfloat16 on a CPU cannot: see the known limits."""
    monkeypatch.setattr(affine_recurrence, "_LARGE", large)
    params, carry, xs, _, _ = problem(cells.lstm, 3, dtype)

    def loss(params):
        return jnp.sum(artbp.fused_unroll(cells.lstm, params, carry, xs)[1].astype(jnp.float32))

    gradient = jax.jit(jax.grad(loss))
    if dtype == jnp.bfloat16 and jax.default_backend() == "cpu":
        with pytest.raises(ValueError, match="LayoutConstraint"):
            jax.export.export(gradient)(params)
        return
    exported = jax.export.export(gradient)(params)
    jax.tree.map(np.testing.assert_array_equal, exported.call(params), gradient(params))


@pytest.mark.parametrize("unroll", [artbp.unroll, artbp.fused_unroll])
def test_the_gradient_of_a_narrow_initial_carry_is_summed_in_float32(unroll):
    """In bfloat16, 1 + … + 1 stays at 256."""

    def total(initial_carry):
        options = {"resets": jnp.ones(600, bool), "initial_carry": initial_carry}
        carry, xs = jnp.zeros((), jnp.bfloat16), jnp.zeros(600)
        _, ys = unroll(lambda params, carry, x: (carry, carry), (), carry, xs, **options)
        return jnp.sum(ys.astype(jnp.float32))

    assert jax.grad(total)(jnp.ones((), jnp.bfloat16)) == 600
