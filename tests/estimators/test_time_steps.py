"""Learning-rate schedules that count time steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import make_problem

import artbp

LENGTHS = [5, 1, 6, 3]


def schedule(n):
    return 0.1 / jnp.sqrt(1.0 + jnp.asarray(n, float))


def test_the_rate_is_that_of_the_time_step(float64):
    """A run with segments of 5, 1, 6 and 3 steps, over two passes, in one jitted step."""
    problem = make_problem("rnn", 15)
    law = artbp.truncation.replay(LENGTHS)
    estimator = artbp.artbp(problem.cell, problem.loss_fn, law)
    optimizer = optax.chain(optax.sgd(1.0), artbp.scale_by_time_step_schedule(schedule))

    @jax.jit
    def step(state, opt_state):
        grads, state, _ = estimator.estimate(problem.params, state, problem.stream)
        count = {"num_steps": state.num_steps}
        updates, opt_state = optimizer.update(grads, opt_state, problem.params, **count)
        return grads, updates, state, opt_state

    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    opt_state, rates = optimizer.init(problem.params), []
    for _ in range(2 * len(LENGTHS)):
        grads, updates, state, opt_state = step(state, opt_state)
        ratios = jax.tree.map(lambda u, g: -jnp.mean(u / g), updates, grads)
        rates.append(np.mean(jax.tree.leaves(ratios)))
    np.testing.assert_allclose(rates, schedule(np.cumsum(2 * LENGTHS)), rtol=1e-12)


def test_num_steps_is_needed():
    optimizer = artbp.scale_by_time_step_schedule(schedule)
    with pytest.raises(TypeError, match=r"num_steps=state\.num_steps"):
        optimizer.update(jnp.ones(()), optimizer.init(None))


def test_updates_keep_their_dtype():
    optimizer = artbp.scale_by_time_step_schedule(optax.constant_schedule(0.5))
    updates, _ = optimizer.update(jnp.ones((), jnp.bfloat16), optax.EmptyState(), num_steps=3)
    assert updates.dtype == jnp.bfloat16 and updates == 0.5
