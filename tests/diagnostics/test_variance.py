"""The variance formula equals enumeration, and its sampled trace covers the exact one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from problems import (
    CELLS,
    SmallProblem,
    ages,
    as_function,
    gated_gradient,
    make_problem,
    patterns,
    probability,
)

import artbp
from artbp import cells, truncation
from artbp.diagnostics import truncation_covariance, truncation_variance, variance_along
from artbp.diagnostics.interval import student_t_quantile

pytestmark = pytest.mark.usefixtures("float64")

LAW = truncation.polynomial(3, 4)
WRONG = truncation.polynomial(3.3, 4)


def moments(problem, law, rows=None):
    """Computes the covariance by enumeration of the boundaries that rows share.

    With rows=2, each of two rows has its own boundaries: all pairs of patterns, gates `[T, 2]`.
    """
    one_row = patterns(problem.stream.num_steps)
    gates = np.array([np.where(p, 0.0, law.compensation(ages(p))) for p in one_row])
    weights = np.array([probability(p, law) for p in one_row])
    if rows == 2:
        first, second = np.divmod(np.arange(len(gates) ** 2), len(gates))
        gates = np.stack([gates[first], gates[second]], axis=-1)
        weights = weights[first] * weights[second]
    flat = jax.jit(jax.vmap(lambda gates: ravel_pytree(gated_gradient(problem, gates))[0]))
    gradients = np.asarray(flat(jnp.asarray(gates)))
    offsets = gradients - weights @ gradients
    return offsets.T @ (weights[:, None] * offsets)


def covariance(problem, law=LAW, **options):
    return truncation_covariance(
        problem.cell, problem.loss_fn, law, problem.params, problem.carry, problem.stream, **options
    )


def distance(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", CELLS)
def test_the_formula_equals_enumeration(name):
    problem = make_problem(name, 8, resets=True, mask=True)
    expected = moments(problem, LAW)
    assert distance(covariance(problem), expected) < 1e-10
    assert distance(covariance(problem, WRONG), expected) > 0.01


def test_rows_with_independent_boundaries():
    problem = make_problem("lstm", 5, resets=True, mask=True)
    expected = moments(problem, LAW, rows=2)
    assert distance(covariance(problem, per_row=True), expected) < 1e-10
    assert distance(covariance(problem), expected) > 0.01


def awkward_problem():
    """Makes a problem without batch, with an integer in the carry and the old carry in y."""

    def cell(params, carry, x):
        h, count = carry
        new = jnp.tanh(params["w"] * h + x) + 0.1 * jnp.sin(count.astype(float)) * params["b"]
        return (new, count + jnp.ones_like(count)), h * new

    def loss_fn(params, y, target):
        return (params["b"] * y - target) ** 2

    keys = jax.random.split(jax.random.key(5))
    stream = artbp.Stream(jax.random.normal(keys[0], (7,)), jax.random.normal(keys[1], (7,)))
    params = {"w": jnp.array(0.9), "b": jnp.array(0.7)}
    carry = (jnp.array(0.2), jnp.array(3, jnp.int32))
    return make_problem("rnn", 7)._replace(
        cell=cell, loss_fn=loss_fn, params=params, carry=carry, stream=stream
    )


def test_a_carry_with_integers_and_no_batch():
    problem = awkward_problem()
    assert distance(covariance(problem), moments(problem, LAW)) < 1e-10
    with pytest.raises(ValueError, match="per_row=True needs losses of shape"):
        covariance(problem, per_row=True)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_a_cell_with_noise(impl):
    """Some kinds of keys draw other numbers under `jax.vmap`, for all lags together."""
    problem = make_problem("rnn", 8)
    inner = problem.cell

    def cell(params, carry, x):
        x, rng_key = x
        return inner(params, carry * (1 + jax.random.normal(rng_key, carry.shape)), x)

    rng_keys = jax.random.split(jax.random.key(5, impl=impl), 8)
    stream = artbp.Stream((problem.stream.xs, rng_keys), problem.stream.targets)
    problem = problem._replace(cell=cell, stream=stream)
    expected = moments(problem, LAW)
    assert distance(covariance(problem), expected) < 1e-10
    flat, to_tree = ravel_pytree(problem.params)
    direction = jax.random.normal(jax.random.key(6), flat.shape)
    parts = problem.params, problem.carry, problem.stream
    along = variance_along(cell, problem.loss_fn, LAW, *parts, to_tree(direction))
    np.testing.assert_allclose(along, direction @ expected @ direction, rtol=1e-10)


def test_laws_with_certain_cuts_are_refused():
    problem = make_problem("rnn", 4)
    with pytest.raises(ValueError, match=r"c\(3\) = 1 .* a bias, not a variance"):
        covariance(problem, truncation.fixed(3))
    # A law whose first cut is at the end of the stream adds no variance.
    assert not covariance(problem, truncation.fixed(4)).any()
    assert not covariance(problem, truncation.never()).any()


@pytest.mark.parametrize("per_row", [False, True], ids=["shared", "per row"])
def test_the_sampled_trace_covers_the_exact_one(per_row):
    """Total and leaves at a level of 99.9 % each, fixed key; another law is not covered."""
    problem = as_function(make_problem("lstm", 16, resets=True))
    arguments = (problem.params, problem.carry, problem.stream)
    exact = np.diagonal(covariance(problem, per_row=per_row))
    _, to_tree = ravel_pytree(problem.params)
    exact_leaves = jax.tree.map(lambda leaf: float(jnp.sum(leaf)), to_tree(jnp.asarray(exact)))
    found, wrong = truncation_variance(
        problem.cell,
        problem.loss_fn,
        [LAW, truncation.polynomial(4.5, 4)],
        *arguments,
        rng_key=jax.random.key(2),
        num_samples=600,
        confidence=0.999,
        per_row=per_row,
    )
    assert abs(found.trace - exact.sum()) < found.half_width < 0.3 * found.trace
    quantile = found.half_width / found.standard_error
    for leaf, error, expected in zip(
        jax.tree.leaves(found.per_leaf),
        jax.tree.leaves(found.per_leaf_standard_error),
        jax.tree.leaves(exact_leaves),
        strict=True,
    ):
        assert abs(leaf - expected) <= quantile * error
    assert found.per_leaf["readout"] == exact_leaves["readout"] == 0
    assert sum(jax.tree.leaves(found.per_leaf)) == pytest.approx(found.trace)
    assert abs(wrong.trace - exact.sum()) > wrong.half_width


def age_probabilities(law, num_steps):
    """Computes P(the age at step u is k), entry [u − 1, k − 1], step by step."""
    found = np.zeros((num_steps, num_steps))
    found[0, 0] = 1
    hazard = law.hazard(np.arange(1, num_steps))
    for u in range(1, num_steps):
        found[u, 0] = found[u - 1, :-1] @ hazard
        found[u, 1:] = found[u - 1, :-1] * (1 - hazard)
    return found


def full_trace(problem, law, per_row):
    """Computes the exact trace of each leaf without a matrix, summing over steps u and ages k

        p_u(k) · c(k)/(1 − c(k)) · ‖∇(gate behind u is 1) − ∇(gate behind u is 0)‖²

    by the gated unroll, with a boundary k steps before u, compensations from there to u, and no
    gates behind u. Rows that draw by themselves: the same in one row after the other.
    """
    num_steps, batch = problem.stream.targets.shape
    probabilities = age_probabilities(law, num_steps)
    weights, gates = [], []
    for u in range(1, num_steps):
        for k in range(1, u + 1):
            weight = probabilities[u - 1, k - 1] * law.hazard(k) / (1 - law.hazard(k))
            of_row = np.ones(num_steps)
            of_row[u - k : u - 1] = law.compensation(np.arange(1, k))
            of_row[: u - k] = 0
            for rows in [[0], [1]] if per_row else [[0, 1]]:
                both = np.ones((2, num_steps, batch))
                both[:, :, rows] = of_row[:, None]
                both[1, u - 1, rows] = 0
                weights.append(weight)
                gates.append(both)

    def squares(inputs):
        weight, (opened, closed) = inputs
        parts = gated_gradient(problem, opened), gated_gradient(problem, closed)
        return jax.tree.map(lambda a, b: weight * jnp.sum((a - b) ** 2), *parts)

    each = jax.jit(lambda inputs: jax.lax.map(squares, inputs))(
        (np.array(weights), np.array(gates))
    )
    return jax.tree.map(lambda found: float(jnp.sum(found)), each)


@pytest.mark.parametrize("per_row", [False, True], ids=["shared", "per row"])
def test_the_full_trace_is_that_of_the_covariance(per_row):
    problem = make_problem("lstm", 5, resets=True)
    found = sum(jax.tree.leaves(full_trace(problem, LAW, per_row)))
    assert found == pytest.approx(np.trace(covariance(problem, per_row=per_row)), rel=1e-12)


def large_problem():
    """Makes an LSTM of 64 units and 17,472 params, whose covariance would take 2.4 GB."""
    units, num_steps, batch, inputs = 64, 24, 2, 3
    keys = jax.random.split(jax.random.key(0), 5)
    params = {
        "cell": {
            "input": jax.random.normal(keys[0], (inputs, 4 * units)) / jnp.sqrt(inputs),
            "recurrent": jax.random.normal(keys[1], (units, 4 * units)) / jnp.sqrt(units),
            "bias": jnp.full((4 * units,), 0.5),  # a memory longer than a few steps
        },
        "readout": jax.random.normal(keys[2], (units,)) / jnp.sqrt(units),
    }
    lstm = cells.lstm.with_params(lambda params: params["cell"])
    # Rows are similar, so that it matters whether they share their boundaries.
    xs = jax.random.normal(keys[3], (num_steps, batch, inputs))
    targets = jax.random.normal(keys[4], (num_steps, batch))
    stream = artbp.Stream(xs + 2 * xs[:, :1], targets + 2 * targets[:, :1])
    return SmallProblem(
        cell=lambda params, carry, x: lstm(params, carry, x),
        loss_fn=lambda params, y, target: 0.5 * (y @ params["readout"] - target) ** 2,
        params=params,
        carry=cells.lstm.initial_carry(params["cell"], batch),
        stream=stream,
    )


@pytest.mark.slow
@pytest.mark.optimised  # it spends more time on computing than on compiling
def test_the_interval_for_a_large_cell_covers_the_full_trace():
    """Level 99.9 %, fixed key; another law and the other sharing of rows are not covered.

    Each interval is narrower than a third of what it is around, so that covering says something.
    """
    problem = large_problem()
    expected = {per_row: full_trace(problem, LAW, per_row) for per_row in (False, True)}
    for per_row, leaves in expected.items():
        found, wrong = truncation_variance(
            problem.cell,
            problem.loss_fn,
            [LAW, truncation.polynomial(4.5, 4)],
            problem.params,
            problem.carry,
            problem.stream,
            rng_key=jax.random.key(2),
            num_samples=500,
            confidence=0.999,
            per_row=per_row,
        )
        trace = sum(jax.tree.leaves(leaves))
        assert abs(found.trace - trace) < found.half_width < trace / 3
        quantile = found.half_width / found.standard_error
        errors = jax.tree.leaves(found.per_leaf_standard_error)
        pairs = zip(jax.tree.leaves(found.per_leaf), jax.tree.leaves(leaves), errors, strict=True)
        assert all(abs(leaf - exact) <= quantile * error for leaf, exact, error in pairs)
        assert abs(wrong.trace - trace) > wrong.half_width
        of_other_rows = sum(jax.tree.leaves(expected[not per_row]))
        assert abs(found.trace - of_other_rows) > found.half_width


def test_one_gate_and_one_parameter_have_no_sampling_error():
    """With z = ±1 and u = 1 every sample is the trace, c/(1 − c)·(dℓ_2/dθ through step 1)²."""
    found = truncation_variance(
        lambda theta, carry, x: (0.5 * carry + theta, 0.5 * carry + theta),
        lambda theta, y, target: 3 * y,
        LAW,
        jnp.array(0.3),
        jnp.array(1.0),
        artbp.Stream(None, num_steps=2),
        rng_key=jax.random.key(0),
        num_samples=3,
    )
    hazard = LAW.hazard(1)
    assert found.trace == pytest.approx(hazard / (1 - hazard) * 1.5**2, rel=1e-13)
    assert found.half_width < 1e-12


def test_student_quantiles():
    """The quantiles equal a printed table."""
    for confidence, freedom, expected in ((0.95, 15, 2.131), (0.95, 1, 12.706), (0.99, 7, 3.499)):
        assert student_t_quantile(confidence, freedom) == pytest.approx(expected, abs=6e-4)


def test_bad_numbers_of_samples():
    problem = make_problem("rnn", 4)
    arguments = (problem.cell, problem.loss_fn, LAW, problem.params, problem.carry, problem.stream)
    for options, message in (
        ({"num_samples": 1}, "num_samples=1; expected an integer ≥ 2"),
        (
            {"num_samples": 8, "confidence": 1.0},
            "confidence=1.0; expected a number",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            truncation_variance(*arguments, rng_key=jax.random.key(0), **options)


@pytest.mark.parametrize("change", ["fewer leaves", "other names", "other shapes"])
def test_a_direction_has_to_be_like_params(change):
    problem = make_problem("rnn", 4)
    direction = dict(problem.params)
    name = next(iter(direction))
    leaf = direction.pop(name)
    if change == "other names":
        direction["other"] = leaf
    elif change == "other shapes":
        direction[name] = jax.tree.map(lambda array: array[None], leaf)
    parts = problem.params, problem.carry, problem.stream
    with pytest.raises(ValueError, match="expected those of params"):
        variance_along(problem.cell, problem.loss_fn, LAW, *parts, direction)
