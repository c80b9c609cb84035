"""Every row of the registry, under the same tests."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import (
    SAME_CODE,
    bptt_gradient,
    make_problem,
    one_pass,
    relative_error,
    summed_loss,
)

import artbp
from artbp.estimators import registry

rows = pytest.mark.parametrize("row", artbp.REGISTRY.values(), ids=artbp.REGISTRY)
rows_of_different_code = pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=name, marks=[pytest.mark.slow] if name in SAME_CODE else [])
        for name, row in artbp.REGISTRY.items()
    ],
)


def build(row, problem, **options):
    if not row.segmentwise:
        options.pop("block_size", None)
    return row.build(problem.cell, problem.loss_fn, 4, **options)


@rows
def test_type_and_argument_names(row):
    estimator = build(row, make_problem())
    assert isinstance(estimator, artbp.GradientEstimator)
    init, estimate = (inspect.signature(function).parameters for function in estimator)
    assert list(init) == ["params", "carry", "rng_key", "initial_carry"]
    assert init["initial_carry"].kind is inspect.Parameter.KEYWORD_ONLY
    assert init["rng_key"].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(estimate) == ["params", "state", "stream"]


@rows_of_different_code
def test_outputs_fit_their_inputs(row):
    """Gradients like params and state like state, in their dtypes, also into the next pass; and a
    state can be donated to a jitted step."""
    problem = make_problem("lstm", 9)
    estimator = build(row, problem, block_size=4)
    step = jax.jit(estimator.estimate, donate_argnums=1)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    passes = 0
    while passes < 2:
        before = jax.eval_shape(lambda state=state: state)
        grads, state, info = step(problem.params, state, problem.stream)
        chex.assert_trees_all_equal_shapes_and_dtypes(grads, problem.params)
        assert isinstance(info, artbp.EstimatorInfo)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, before)
        assert not any(getattr(leaf, "weak_type", False) for leaf in jax.tree.leaves(state))
        assert all(jnp.ndim(leaf) == 0 for leaf in jax.tree.leaves(info))
        passes += bool(info.end_of_stream)


@rows_of_different_code
def test_deterministic_in_the_key(row):
    problem = make_problem("rnn", 30)
    estimator = build(row, problem)
    first, infos, _ = one_pass(estimator, problem, jax.random.key(3))
    second, infos_, _ = one_pass(estimator, problem, jax.random.key(3))
    chex.assert_trees_all_equal(first, second)
    assert [int(i.length) for i in infos] == [int(i.length) for i in infos_]


@rows_of_different_code
def test_one_trace_under_jit(row):
    problem = make_problem("rnn", 40)
    estimator = build(row, problem, block_size=4)
    traces = []

    @jax.jit
    def step(params, state):
        traces.append(None)
        return estimator.estimate(params, state, problem.stream)

    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    for _ in range(25):
        _, state, _ = step(problem.params, state)
    assert len(traces) == 1


@functools.cache
def with_gradient(name, num_steps, **options):
    """A problem and its gradient by a Python loop, which takes longer than an estimator."""
    problem = make_problem(name, num_steps, **options)
    return problem, bptt_gradient(problem)


@rows
def test_exactness_is_what_the_row_claims(row, float64):
    problem, gradient = with_gradient("gru", 21, resets=True)
    total, infos, _ = one_pass(build(row, problem, block_size=5), problem)
    error = relative_error(total, gradient)
    assert error < 1e-12 if row.exact else error > 1e-4
    losses = sum(float(info.loss_sum) for info in infos)
    expected = summed_loss(problem, problem.params)
    np.testing.assert_allclose(losses, expected, rtol=1e-13)  # no loss is dropped or counted twice
    assert sum(int(info.num_losses) for info in infos) == 2 * 21


# Too noisy to be told from a bias in this many keys: enumerated in test_online, and tested on a
# problem of their own in test_perturbed.
NOISY = {"uoro", "truncated_es", "pes", "gpes", "nres"}
RANDOM_SUMS = [name for name, row in artbp.REGISTRY.items() if row.random and row.sums]


@pytest.mark.parametrize("name", [name for name in RANDOM_SUMS if name not in NOISY])
def test_the_mean_over_keys_is_what_the_row_claims(name, float64):
    """2000 keys along a random direction: five standard errors, a false alarm rate below 1e-6.

    Biased rows must be rejected by the same test. The law has mean 4 on 12 steps, short enough for
    the weights to stay small; the proof is the enumeration in test_unbiasedness.
    """
    row = artbp.REGISTRY[name]
    problem, gradient = with_gradient("rnn", 12)
    estimator = build(row, problem, block_size=4)
    leaves, treedef = jax.tree.flatten(problem.params)
    keys = treedef.unflatten(list(jax.random.split(jax.random.key(9), len(leaves))))
    direction = jax.tree.map(
        lambda key, leaf: jax.random.normal(key, leaf.shape), keys, problem.params
    )

    def along(grads):
        products = jax.tree.map(lambda g, d: jnp.vdot(g, d), grads, direction)
        return sum(jax.tree.leaves(products))

    def pass_of(key):
        state = estimator.init(problem.params, problem.carry, rng_key=key)

        def segment(carried, _):
            total, state, done = carried
            grads, state, info = estimator.estimate(problem.params, state, problem.stream)
            total = total + jnp.where(done, 0.0, along(grads))
            return (total, state, done | info.end_of_stream), None

        start = (jnp.zeros(()), state, jnp.asarray(False))
        return jax.lax.scan(segment, start, length=12)[0][0]

    samples = np.asarray(jax.jit(jax.vmap(pass_of))(jax.random.split(jax.random.key(1), 2000)))
    standard_error = samples.std() / np.sqrt(samples.size) + 1e-12
    distance = abs(samples.mean() - along(gradient)) / standard_error
    assert distance < 5 if row.unbiased else distance > 5


def test_every_estimator_has_a_row(monkeypatch):
    """A public estimator without a row would escape these tests: each is seen being built."""
    names = {
        name
        for name in artbp.estimators.__all__
        if inspect.isfunction(value := getattr(artbp.estimators, name))
        and value.__annotations__["return"] is artbp.GradientEstimator
    }
    assert "artbp" in names
    names -= {"diagonal_rtrl"}  # for diagonal cells only; it has tests of its own
    built = set()

    def watch(name, function):
        def building(*args, **kwargs):
            built.add(name)
            return function(*args, **kwargs)

        return building

    problem = make_problem()
    # The rows look their estimator up when they build it, or hold it in a closure.
    for name in names:
        monkeypatch.setattr(registry, name, watch(name, getattr(registry, name)))
    for row in artbp.REGISTRY.values():
        held = [cell.cell_contents for cell in row.build.__closure__ or ()]
        built |= {value.__name__ for value in held if getattr(value, "__name__", "") in names}
        build(row, problem)
    assert built == names


CELL = '''
def cell(params, carry, x):
    """A second-order unit, as a user may write it: tuple carry, dict input, an integer counter."""
    position, velocity, count = carry
    force = x["push"] @ params["push"] + x["level"][:, None]
    force = force - jnp.tanh(position @ params["spring"])
    velocity = params["damping"] * velocity + 0.3 * force
    position = position + 0.3 * velocity
    y = {"position": position, "energy": (velocity**2).sum(-1)}
    return (position, velocity, count + 1), y
'''


@rows_of_different_code
def test_takes_a_cell_of_your_own(row):
    """Any function is a cell: other containers, an integer leaf in the carry, y a tree."""
    scope = {"jnp": jnp}
    exec(CELL, scope)
    keys = jax.random.split(jax.random.key(2), 5)
    params = {
        "push": jax.random.normal(keys[0], (2, 3)),
        "spring": jax.random.normal(keys[1], (3, 3)),
        "damping": jnp.asarray(0.8),
        "readout": jax.random.normal(keys[2], (3,)),
    }

    def loss_fn(params, y, target):
        return (y["position"] @ params["readout"] - target) ** 2 + 0.1 * y["energy"]

    xs = {
        "push": jax.random.normal(keys[3], (11, 2, 2)),
        "level": jax.random.normal(keys[4], (11, 2)),
    }
    stream = artbp.Stream(xs, jnp.ones((11, 2)))
    carry = (jnp.zeros((2, 3)), jnp.zeros((2, 3)), jnp.zeros((2,), jnp.int32))
    estimator = row.build(scope["cell"], loss_fn, 4)
    state = estimator.init(params, carry, rng_key=jax.random.key(0))
    grads, state, info = jax.jit(estimator.estimate)(params, state, stream)
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, params)
    assert all(
        bool(jnp.isfinite(leaf).all() & (leaf != 0).any()) for leaf in jax.tree.leaves(grads)
    )
    steps = 0 if info.end_of_stream else info.length  # at the end, the initial carry is back
    np.testing.assert_array_equal(state.carry[2], jnp.full((2,), steps))
