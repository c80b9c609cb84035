"""The forward gradient is BPTT on average over all directions of signs, along one pass."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from problems import bptt_gradient, make_problem, one_pass, relative_error

import artbp
from artbp import cells

pytestmark = pytest.mark.usefixtures("float64")

NUM_STEPS = 6


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        problem = make_problem("rnn", NUM_STEPS, resets=True, mask=True, seed=1)
        keys = jax.random.split(jax.random.key(4), 2)
        params = {
            "cell": cells.rnn.init(keys[0], 3, 2, dtype=jnp.float64),
            "readout": jax.random.normal(keys[1], (2,)),
        }
        return problem._replace(params=params, carry=jnp.full((2, 2), 0.3))


def along(problem, table, **options):
    """The estimator with the directions of `table`, `[M, P]`."""
    unravel = jax.vmap(ravel_pytree(problem.params)[1])
    return artbp.forward_gradient(
        problem.cell,
        problem.loss_fn,
        num_directions=len(table),
        draw_directions=lambda rng_key, like: unravel(jnp.asarray(table)),
        **options,
    )


@pytest.mark.parametrize("update_every", [1, 4])
def test_the_mean_over_all_signs_is_bptt(problem, update_every):
    size = ravel_pytree(problem.params)[0].size
    table = np.array(list(itertools.product([-1.0, 1.0], repeat=size)))  # 2¹⁴ directions
    mean, _, state = one_pass(along(problem, table, update_every=update_every), problem)
    expected = bptt_gradient(problem)
    assert relative_error(mean, expected) < 1e-12
    assert not state.inner_state.are_drawn  # the next pass draws new ones
    # Controls: one direction differs, and directions twice as long give a bias.
    one, _, _ = one_pass(along(problem, table[:1], update_every=update_every), problem)
    assert relative_error(one, expected) > 0.1
    wrong, _, _ = one_pass(along(problem, 2 * table[: 1 << 10], update_every=1), problem)
    assert relative_error(wrong, expected) > 0.1


def test_a_direction_gives_its_derivative(problem):
    """The part of the gradient that passes the carry is (u · it) u; the rest is exact."""
    direction = jax.random.normal(jax.random.key(7), ravel_pytree(problem.params)[0].shape)
    total, _, _ = one_pass(along(problem, direction[None]), problem)

    exact = ravel_pytree(bptt_gradient(problem))[0]
    direct = ravel_pytree(one_pass(_one_step(problem), problem)[0])[0]
    expected = direct + direction * jnp.dot(direction, exact - direct)
    np.testing.assert_allclose(ravel_pytree(total)[0], expected, rtol=1e-10)


def _one_step(problem):
    """TBPTT of one step: its gradient is the sum of the ∂ℓ_t/∂θ that do not pass the carry."""
    return artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=1)


def test_directions_are_drawn_once_a_pass_without_resets(problem):
    stream = dataclasses.replace(problem.stream, resets=None)
    estimator = artbp.forward_gradient(problem.cell, problem.loss_fn, num_directions=3)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    seen = []
    for _ in range(2 * NUM_STEPS):
        _, state, info = estimator.estimate(problem.params, state, stream)
        if not info.end_of_stream:
            seen.append(np.asarray(ravel_pytree(state.inner_state.params)[0]))
    assert np.unique(seen, axis=0).shape[0] == 2
    assert set(np.unique(seen)) == {-1.0, 1.0}


def pass_and_directions(problem, update_every, draw_at):
    """(the gradient of a pass, what is drawn at these steps), with normal directions."""
    size = ravel_pytree(problem.params)[0].size
    unravel = jax.vmap(ravel_pytree(problem.params)[1])
    estimator = artbp.forward_gradient(
        problem.cell,
        problem.loss_fn,
        update_every=update_every,
        draw_directions=lambda rng_key, like: unravel(jax.random.normal(rng_key, (1, size))),
    )
    key = jax.random.key(1)
    total, _, _ = one_pass(estimator, problem, key)

    def drawn(t):
        of_step = jax.random.fold_in(jax.random.fold_in(key, t // update_every), t % update_every)
        return jax.random.normal(of_step, (size,))

    return ravel_pytree(total)[0], [drawn(t) for t in draw_at]


@pytest.mark.parametrize("update_every", [1, 4])
@pytest.mark.parametrize(
    ("rows", "draw_at"), [(slice(None), (0, 3)), (0, (0, 0))], ids=["all rows", "one row"]
)
def test_directions_are_drawn_where_a_sequence_begins(problem, rows, draw_at, update_every):
    """The gradient is that of two sequences, each with the direction that was drawn for it."""
    resets = np.zeros((NUM_STEPS, 2), bool)
    resets[3, rows] = True
    stream = dataclasses.replace(problem.stream, resets=resets, mask=None)
    total, directions = pass_and_directions(problem._replace(stream=stream), update_every, draw_at)
    expected = 0.0
    for steps, direction in zip((slice(0, 3), slice(3, None)), directions, strict=True):
        mask = np.zeros((NUM_STEPS, 2), bool)
        mask[steps] = True
        part = problem._replace(stream=dataclasses.replace(stream, mask=mask))
        exact = ravel_pytree(bptt_gradient(part))[0]
        direct = ravel_pytree(one_pass(_one_step(part), part)[0])[0]
        assert relative_error(direct, exact) > 0.1
        expected += direct + direction * jnp.dot(direction, exact - direct)
    np.testing.assert_allclose(total, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("initial", "num_drawn"),
    [({}, NUM_STEPS - 1), ({"count": None}, NUM_STEPS - 1), ({"mean": None}, 1)],
)
def test_a_number_that_lasts_keeps_the_direction(problem, initial, num_drawn):
    """What no reset replaces depends on the params along the direction that was drawn before."""
    carry = {"hidden": problem.carry, "mean": jnp.zeros((2, 2)), "count": jnp.zeros(2, jnp.int32)}

    def cell(params, carry, x):
        hidden, y = problem.cell(params, carry["hidden"], x)
        mean = 0.5 * (carry["mean"] + hidden)
        return {"hidden": hidden, "mean": mean, "count": carry["count"] + 1}, y

    stream = dataclasses.replace(problem.stream, resets=np.ones((NUM_STEPS, 2), bool))
    estimator = artbp.forward_gradient(cell, problem.loss_fn)
    key = jax.random.key(0)
    state = estimator.init(problem.params, carry, rng_key=key, initial_carry=carry | initial)
    seen = []
    for _ in range(NUM_STEPS - 1):
        _, state, _ = estimator.estimate(problem.params, state, stream)
        seen.append(np.asarray(ravel_pytree(state.inner_state.params)[0]))
    assert np.unique(seen, axis=0).shape[0] == num_drawn


def test_streams_side_by_side_draw_where_one_of_them_begins(problem):
    """Under `jax.vmap` the other steps draw nothing, and each stream keeps its own directions."""
    resets = np.zeros((2, NUM_STEPS), bool)
    resets[0, [0, 3]] = True
    resets[1, 0] = True
    zeros = jnp.zeros_like(problem.carry)
    draws = []

    def draw(rng_key, like):
        jax.debug.callback(lambda key: draws.append(1), jax.random.key_data(rng_key))
        return jax.tree.map(lambda leaf: jax.random.normal(rng_key, leaf.shape, leaf.dtype), like)

    estimator = artbp.forward_gradient(
        problem.cell, problem.loss_fn, draw_directions=draw, update_every=NUM_STEPS
    )

    def estimate(resets, rng_key):
        stream = dataclasses.replace(problem.stream, resets=resets, mask=None)
        state = estimator.init(problem.params, zeros, rng_key=rng_key)
        return estimator.estimate(problem.params, state, stream)[0]

    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.block_until_ready(jax.jit(jax.vmap(estimate))(jnp.asarray(resets), keys))
    jax.effects_barrier()
    # At steps 0 and 3, for each of the two streams that a callback runs for under vmap. A draw at
    # every step would give 12.
    assert len(draws) == 4
    for i in range(2):
        alone = estimate(jnp.asarray(resets[i]), keys[i])
        of_stream = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        assert relative_error(of_stream, alone) < 1e-12


def test_bad_number_of_directions(problem):
    with pytest.raises(ValueError, match="num_directions=0"):
        artbp.forward_gradient(problem.cell, problem.loss_fn, num_directions=0)
