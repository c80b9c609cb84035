"""The carries at the beginning of a pass and after a reset, and the count of time steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import REGISTRY_ROWS, make_problem, relative_error

import artbp

rows = pytest.mark.parametrize("name", REGISTRY_ROWS)
NUM_STEPS = 11
# Not the gradient of the summed losses: perturbed params, means of segments, a part of the losses.
OTHER_GRADIENTS = {
    "awd_lstm_bptt",
    "gpes",
    "nres",
    "pes",
    "tbptt_short_window",
    "tbptt_window_losses",
    "truncated_es",
}


def losses_of(problem, params, initial_carry):
    """The summed losses of a pass by `artbp.unroll`, with its rule for resets."""
    stream = problem.stream
    options = {"resets": stream.resets, "initial_carry": initial_carry}
    _, ys = artbp.unroll(problem.cell, params, problem.carry, stream.xs, **options)
    return jnp.sum(jax.vmap(problem.loss_fn, (None, 0, 0))(params, ys, stream.targets))


@rows
@pytest.mark.parametrize("is_given", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_pass_is_an_unroll(name, is_given, float64):
    """The first carry is nonzero, and a reset comes before every step but the first.

    No gradient crosses a reset, so truncation changes nothing, and a wrong carry is the only way to
    differ from BPTT. Two passes: the second begins with the first carry again.
    """
    row, problem = artbp.REGISTRY[name], make_problem("gru", NUM_STEPS)
    stream = problem.stream
    stream = artbp.Stream(stream.xs, stream.targets, resets=np.arange(NUM_STEPS) > 0)
    problem = problem._replace(stream=stream)
    given = jax.tree.map(lambda leaf: leaf - 0.8, problem.carry) if is_given else None
    expected, gradient = jax.value_and_grad(lambda p: losses_of(problem, p, given))(problem.params)

    estimator = row.build(problem.cell, problem.loss_fn, 4)
    options = {"rng_key": jax.random.key(1), "initial_carry": given}
    state = estimator.init(problem.params, problem.carry, **options)
    for n in (1, 2):
        total, losses, end_of_stream = jax.tree.map(jnp.zeros_like, problem.params), 0.0, False
        while not end_of_stream:
            grads, state, info = estimator.estimate(problem.params, state, stream)
            total, losses = jax.tree.map(jnp.add, total, grads), losses + float(info.loss_sum)
            end_of_stream = info.end_of_stream
        np.testing.assert_allclose(losses, expected, rtol=1e-12)
        if name not in OTHER_GRADIENTS:
            assert relative_error(total, gradient) < 1e-12
        assert int(state.num_steps) == n * NUM_STEPS


def test_an_initial_carry_of_another_type():
    problem = make_problem("gru")
    estimator = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=4)
    with pytest.raises(ValueError, match="initial_carry"):
        wrong = {"initial_carry": jnp.zeros((2, 5))}
        estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0), **wrong)


def test_independent_runs_follow_the_same_rule(float64):
    """With a counter as a lasting leaf, which goes on at resets and at the end of the pass."""
    problem = make_problem("gru", NUM_STEPS)
    stream = problem.stream
    stream = artbp.Stream(stream.xs, stream.targets, resets=np.arange(NUM_STEPS) > 0)
    problem = problem._replace(stream=stream)
    given = jax.tree.map(lambda leaf: leaf - 0.8, problem.carry)
    expected = losses_of(problem, problem.params, given)

    @artbp.contrib.by_run
    def update(params, aux, grads, info):
        del grads
        return params, (aux[0] + info.loss_sum, aux[1] + info.length)

    def counting_cell(params, carry, x):
        carry, count = carry
        carry, y = problem.cell(params, carry, x)
        return (carry, count + 1), y

    runs = artbp.contrib.independent_runs(
        counting_cell,
        problem.loss_fn,
        artbp.truncation.geometric(4),
        update,
        lambda params, aux: aux[1] < NUM_STEPS,
    )
    carry, keys = (problem.carry, np.zeros((), np.int32)), jax.random.split(jax.random.key(0), 2)
    state = runs.init(carry, keys, (given, None))
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), problem.params)
    aux = jnp.zeros(2), jnp.zeros(2, jnp.int32)
    _, (losses, _), state = runs.run(params, aux, state, stream)
    np.testing.assert_allclose(losses, [expected] * 2, rtol=1e-12)
    np.testing.assert_array_equal(state.num_steps, [NUM_STEPS] * 2)
    np.testing.assert_array_equal(state.carry[0], jnp.stack([problem.carry] * 2))
    np.testing.assert_array_equal(state.carry[1], [NUM_STEPS] * 2)
