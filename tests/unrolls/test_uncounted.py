"""Steps and rows whose loss does not count have no influence, whatever they hold."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import REGISTRY_ROWS, make_problem, one_pass, relative_error, run_python

import artbp

rows = pytest.mark.parametrize("name", REGISTRY_ROWS)
NUM_STEPS, NUM_ROWS = 6, 3
# Row 0 counts at steps 2 and 3 only, row 1 at all but two, row 2 never; step 4 in no row.
MASK = np.array([[0, 1, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]], bool)


def distance(params, y, target):
    """The length of the error: it has no derivative where y is the target."""
    return jnp.linalg.norm(y * params["readout"][None] - target, axis=-1)


def problem_of(loss_fn=distance, mask=MASK, spoil=True):
    """Targets that are, where nothing counts, what y is: with the carry 0 and the input 0, y is 0.

    The row that never counts has NaN inputs.
    """
    problem = make_problem("rnn", NUM_STEPS, NUM_ROWS)
    xs = np.asarray(problem.stream.xs).copy()
    targets = np.ones((NUM_STEPS, NUM_ROWS, 4)) * np.arange(1, 5)
    if spoil:
        xs[:2, 0] = 0.0
        targets[:2, 0] = 0.0
        targets[4:, 0] = np.nan
        xs[:, 2] = np.nan
        targets[:, 2] = np.inf
    params = problem.params | {"readout": np.arange(1.0, 5.0)}
    params["cell"] = problem.params["cell"] | {"bias": jnp.zeros(4)}
    stream = artbp.Stream(xs, targets, mask=mask)
    carry = jnp.zeros((NUM_ROWS, 4)).at[1].set(0.3)
    return problem._replace(loss_fn=loss_fn, params=params, stream=stream, carry=carry)


def counted_gradient(problem):
    """The gradient of a loop that takes the counted losses alone, of the rows that have some."""

    def loss(params):
        carry, total, stream = problem.carry[:2], 0.0, problem.stream
        for t in range(NUM_STEPS):
            carry, y = problem.cell(params, carry, stream.xs[t, :2])
            for b in np.flatnonzero(stream.mask[t]):
                losses = problem.loss_fn(params, y[b : b + 1], stream.targets[t, b : b + 1])
                total += float(stream.mask[t, b]) * losses[0]
        return total

    return jax.grad(loss)(problem.params)


@rows
def test_no_row_of_the_registry_sees_them(name, float64):
    """All gradients are finite; those of exact rows are those of the counted losses alone."""
    problem = problem_of()
    estimator = artbp.REGISTRY[name].build(problem.cell, problem.loss_fn, NUM_STEPS)
    total, infos, _ = one_pass(estimator, problem)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(total))
    assert sum(int(info.num_losses) for info in infos) == MASK.sum()
    if name in ("bptt", "tbptt", "rtrl"):
        assert relative_error(total, counted_gradient(problem)) < 1e-12


@pytest.mark.parametrize("policy", ["dynamic", "exact"])
@pytest.mark.parametrize("dtype", [bool, float])
def test_every_kernel(policy, dtype, float64):
    """The unroll in chunks of one program, and the one in pieces of static length."""
    mask = MASK if dtype is bool else 0.5 * MASK
    problem = problem_of(mask=mask)
    make = artbp.bptt if policy == "dynamic" else artbp.tbptt
    options = {} if policy == "dynamic" else {"truncation_length": 6, "policy": policy}
    total, _, _ = one_pass(make(problem.cell, problem.loss_fn, **options), problem)
    assert relative_error(total, counted_gradient(problem)) < 1e-12


def test_nothing_counts(float64):
    problem = problem_of(mask=np.zeros_like(MASK), spoil=False)
    problem = problem._replace(
        stream=problem.stream.__class__(
            problem.stream.xs, np.full((NUM_STEPS, NUM_ROWS, 4), np.nan), mask=np.zeros_like(MASK)
        )
    )
    for name in ("bptt", "rtrl"):
        estimator = artbp.REGISTRY[name].build(problem.cell, problem.loss_fn, 4)
        total, _, _ = one_pass(estimator, problem)
        assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(total))


def test_an_array_that_rows_share_is_not_taken_for_rows(float64):
    """Three features and three rows: entries of a shared target stay what they are."""
    problem = problem_of(spoil=False)

    def loss_fn(params, y, target):
        wanted = jnp.broadcast_to(target, (y.shape[0], 3))  # of [3], or of [B, 3]
        return jnp.sum((y[:, :3] * params["readout"][None, :3] - wanted) ** 2, axis=-1)

    shared = np.random.default_rng(0).normal(size=(NUM_STEPS, NUM_ROWS))
    shared[4] = np.nan  # where no row counts
    stream = artbp.Stream(problem.stream.xs, shared, mask=MASK)
    total, _, _ = one_pass(artbp.bptt(problem.cell, loss_fn), problem._replace(stream=stream))
    by_row = np.repeat(shared[:, None], NUM_ROWS, axis=1)
    expected = problem._replace(loss_fn=loss_fn, stream=artbp.Stream(stream.xs, by_row, mask=MASK))
    assert relative_error(total, counted_gradient(expected)) < 1e-12


def test_a_shared_array_that_a_loss_reads_across_rows(float64):
    """Weights of three classes, and an average over three features: no entry belongs to a row."""
    problem, rng = problem_of(spoil=False), np.random.default_rng(0)
    labels = rng.integers(0, 3, (NUM_STEPS, NUM_ROWS))
    weights, features = rng.uniform(1, 2, (2, NUM_STEPS, 3))
    factors = np.take_along_axis(weights, labels, axis=1) * features.mean(axis=1, keepdims=True)

    def squares(params, y):
        return jnp.sum((y * params["readout"][None]) ** 2, axis=-1)

    def loss_fn(params, y, target):
        mean = jnp.mean(target["features"])
        return target["weights"][target["labels"]] * mean * squares(params, y)

    targets = {"labels": labels, "weights": weights, "features": features}
    found, expected = (
        one_pass(
            artbp.bptt(problem.cell, loss),
            problem._replace(stream=artbp.Stream(problem.stream.xs, target, mask=MASK)),
        )[0]
        for loss, target in (
            (loss_fn, targets),
            (lambda params, y, factor: factor * squares(params, y), factors),
        )
    )
    assert relative_error(found, expected) < 1e-12


def test_a_loss_that_cannot_have_more_rows(float64):
    """It closes over an array of rows. NaN targets still have no influence."""
    problem = problem_of()
    scale = np.arange(1.0, 1 + NUM_ROWS)

    def loss_fn(params, y, target):
        return scale * jnp.sum((y * params["readout"][None] - target) ** 2, axis=-1)

    total, _, _ = one_pass(artbp.bptt(problem.cell, loss_fn), problem)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(total))


def test_inputs_of_a_row_that_counts_elsewhere_stay():
    """NaN enters the carry there, and a result that hid it would be wrong."""
    xs = np.ones((2, 2, 1))
    xs[0] = np.nan
    mask = np.array([[False, False], [True, False]])
    found = artbp.Stream(xs, mask=mask).xs
    np.testing.assert_array_equal(found[:, 0], xs[:, 0])
    np.testing.assert_array_equal(found[:, 1], [[0.0], [1.0]])
    assert np.isnan(xs[0]).all()  # the caller's array
    np.testing.assert_array_equal(artbp.Stream(xs, mask=mask, ends=False).xs, xs)
    on_device = artbp.Stream(jnp.asarray(xs), mask=jnp.asarray(mask)).xs
    np.testing.assert_array_equal(on_device, found)


def test_inputs_of_rows_that_never_count():
    """Arrays without NaN there are not copied, and a mesh axis may be explicit."""
    xs, spoiled = problem_of(spoil=False).stream.xs, problem_of().stream.xs
    assert np.isnan(spoiled).sum() == 0 == np.abs(spoiled[:, 2]).sum()  # as NumPy arrays
    device = jnp.asarray(xs)
    assert artbp.Stream(device, mask=MASK).xs is device
    run_python(
        """
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
        import artbp

        mesh = jax.make_mesh((2,), ("rows",), (AxisType.Explicit,))
        mask, xs = np.arange(3)[:, None] * np.arange(4) > 0, np.ones((3, 4, 2))
        xs[1, 0] = np.nan
        for array in (mask, jax.device_put(mask, NamedSharding(mesh, P(None, "rows")))):
            split = jax.device_put(xs, NamedSharding(mesh, P(None, "rows")))
            found = artbp.Stream(split, mask=array).xs
            assert found.sharding.is_equivalent_to(split.sharding, 3)
            np.testing.assert_array_equal(found, np.nan_to_num(xs))
            assert artbp.Stream(found, mask=array).xs is found
        """,
        XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2",
    )
