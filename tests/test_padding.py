"""Padded batches: `Stream(lengths=)`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import REGISTRY_ROWS, make_problem, one_pass, relative_error

import artbp

LENGTHS = np.array([9, 4, 0], np.int32)
rows = pytest.mark.parametrize("name", REGISTRY_ROWS)


def padded(padding, *, resets=False, mask=False, as_arrays=np.asarray):
    """A problem of three rows whose steps beyond their lengths hold `padding`."""
    problem = make_problem("gru", 9, batch=3, resets=resets, mask=mask)
    stream = problem.stream
    beyond = np.arange(9)[:, None] >= LENGTHS[None, :]
    xs = jnp.where(beyond[..., None], padding, stream.xs)
    targets = jnp.where(beyond, padding, stream.targets)
    arrays = jax.tree.map(as_arrays, (xs, targets, stream.resets, stream.mask))
    return problem._replace(stream=artbp.Stream(*arrays, lengths=LENGTHS))


def gradient_by_row(problem, resets=None, mask=None):
    """(losses, gradient) of every row alone, without its padding."""

    def loss(params):
        total = 0.0
        for b, length in enumerate(LENGTHS[:2]):
            one = lambda leaf, b=b, n=length: jnp.asarray(leaf)[:n, b : b + 1]  # noqa: E731
            xs, targets = jax.tree.map(one, (problem.stream.xs, problem.stream.targets))
            options = {} if resets is None else {"resets": one(resets)}
            carry = problem.carry[b : b + 1]
            _, ys = artbp.unroll(problem.cell, params, carry, xs, **options)
            losses = jax.vmap(problem.loss_fn, (None, 0, 0))(params, ys, targets)
            total += jnp.sum(losses if mask is None else jnp.where(one(mask), losses, 0))
        return total

    return jax.value_and_grad(loss)(problem.params)


@rows
def test_the_padding_has_no_influence(name, float64):
    """NaN and 7 in the padding give the same estimates; exact rows are those of rows alone."""
    row, problem = artbp.REGISTRY[name], padded(np.nan)
    total, infos, _ = one_pass(row.build(problem.cell, problem.loss_fn, 4), problem)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(total))
    assert sum(int(info.num_losses) for info in infos) == LENGTHS.sum()
    losses, gradient = gradient_by_row(problem)
    np.testing.assert_allclose(sum(info.loss_sum for info in infos), losses, rtol=1e-12)
    if row.exact:
        assert relative_error(total, gradient) < 1e-12
        other = padded(7.0)
        estimator = row.build(other.cell, other.loss_fn, 4)
        chex.assert_trees_all_equal(one_pass(estimator, other)[0], total)


@pytest.mark.parametrize("as_arrays", [np.asarray, jnp.asarray])
def test_with_resets_and_a_mask(as_arrays, float64):
    problem = padded(np.nan, resets=True, mask=True, as_arrays=as_arrays)
    given = make_problem("gru", 9, batch=3, resets=True, mask=True).stream
    losses, gradient = gradient_by_row(problem, given.resets, given.mask)
    total, infos, _ = one_pass(artbp.bptt(problem.cell, problem.loss_fn), problem)
    np.testing.assert_allclose(infos[0].loss_sum, losses, rtol=1e-12)
    assert relative_error(total, gradient) < 1e-12
    found = artbp.evaluate(*problem, chunk_size=4)
    np.testing.assert_allclose(found.loss_sum, losses, rtol=1e-12)
    kind = np.ndarray if as_arrays is np.asarray else jax.Array
    assert all(isinstance(leaf, kind) for leaf in jax.tree.leaves(problem.stream))


@pytest.mark.parametrize("as_arrays", [np.asarray, jnp.asarray])
def test_with_weights(as_arrays, float64):
    """The padding of a float mask may be NaN too."""
    problem = make_problem("gru", 9, batch=3)
    xs, targets = problem.stream.xs, problem.stream.targets
    weights = np.random.default_rng(0).choice([0.0, 0.5, 2.0], (9, 3))
    beyond = np.arange(9)[:, None] >= LENGTHS[None, :]
    mask = as_arrays(np.where(beyond, np.nan, weights))
    streams = (
        artbp.Stream(xs, targets, mask=mask, lengths=LENGTHS),
        artbp.Stream(xs, targets, mask=np.where(beyond, 0, weights)),
    )
    estimator = artbp.bptt(problem.cell, problem.loss_fn)
    found, expected = (one_pass(estimator, problem._replace(stream=s))[0] for s in streams)
    assert relative_error(found, expected) < 1e-12
    assert streams[0].mask.dtype == mask.dtype


@pytest.mark.parametrize("padding", [0.0, -1.0, np.nan])
def test_a_loss_that_is_singular_at_the_padding_of_the_targets(padding, float64):
    """The derivative of log(target) · y is masked, but 0 · ∞ and 0 · NaN are NaN."""
    targets = np.full((6, 2), 3.0)
    targets[3:, 1] = padding
    stream = artbp.Stream(np.ones((6, 2)), targets, lengths=np.array([6, 3]))
    estimator = artbp.bptt(
        lambda params, carry, x: (carry, params * x),
        lambda params, y, target: (jnp.log(target * params) - y) ** 2,
    )
    state = estimator.init(jnp.ones(()), jnp.zeros(2), rng_key=jax.random.key(0))
    grads, _, _ = estimator.estimate(jnp.ones(()), state, stream)
    assert grads == 0  # the derivative of (log(3 p) − p)² is a multiple of 1/p − 1


def test_a_state_that_would_overflow(float64):
    """Without resets, the doubled carry of the padding is infinite, and 0 · ∞ is NaN."""

    def cell(params, carry, x):
        carry = params * carry**2 + x
        return carry, carry

    xs = jnp.full((40, 2), 3.0)
    stream = artbp.Stream(xs, lengths=jnp.array([3, 2]))
    estimator = artbp.rtrl(cell, lambda params, y, target: y, update_every=40)
    params = jnp.ones(())
    state = estimator.init(params, jnp.zeros(2), rng_key=jax.random.key(0))
    grads, _, info = estimator.estimate(params, state, stream)
    assert jnp.isfinite(grads) and info.num_losses == 5


def test_traced_lengths():
    xs = jnp.ones((4, 2, 1))

    @jax.jit
    def make(lengths):
        return artbp.Stream(xs, lengths=lengths)

    expected = [[True, True], [True, False], [False, False], [False, False]]
    np.testing.assert_array_equal(make(jnp.array([2, 1])).mask, expected)


def test_integers_keys_and_shared_inputs():
    xs = {
        "ids": np.array([[1, 2], [3, -1]]),
        "keys": jax.random.split(jax.random.key(0), (2, 2)),
        "time": np.arange(2),
    }
    found = artbp.Stream(xs, lengths=np.array([2, 1])).xs
    np.testing.assert_array_equal(found["ids"], [[1, 2], [3, 2]])
    np.testing.assert_array_equal(found["time"], [0, 1])
    keys = jax.random.key_data(found["keys"])
    np.testing.assert_array_equal(keys[1, 1], jax.random.key_data(xs["keys"])[0, 1])


@pytest.mark.parametrize(
    "lengths, message",
    [
        ([[1, 2]], r"expected integers of shape \[B\]"),
        ([1.0, 2.0], "expected integers"),
        ([1, 5], "from 0 to T = num_steps = 4"),
        ([-1, 2], "from 0 to T = num_steps = 4"),
        ([1, 2, 3], r"\[T, B, ...\] with B = 3"),
    ],
)
def test_lengths_that_do_not_fit(lengths, message):
    with pytest.raises(ValueError, match=message):
        artbp.Stream(np.ones((4, 2, 1)), lengths=np.array(lengths))


def test_a_batch_without_rows():
    stream = artbp.Stream(np.zeros((3, 0, 2)), lengths=np.zeros(0, np.int32))
    assert stream.num_steps == 3 and stream.xs.shape == (3, 0, 2)
    cell = lambda params, carry, x: (params * carry + x, carry)  # noqa: E731
    xs, lengths = jnp.zeros((3, 0, 2)), jnp.zeros(0, jnp.int32)
    _, ys = artbp.unroll(cell, jnp.float32(0.5), jnp.zeros((0, 2)), xs, lengths=lengths)
    assert ys.shape == (3, 0, 2)


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16])
def test_lengths_of_a_narrow_dtype_beside_more_steps_than_it_counts(dtype, as_array):
    xs = as_array(np.ones((300, 2, 1), np.float32))
    stream = artbp.Stream(xs, lengths=as_array(np.array([3, 100], dtype)))
    np.testing.assert_array_equal(np.sum(stream.mask, axis=0), [3, 100])
