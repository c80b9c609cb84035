"""`run_pass`: one pass of a stream with frozen parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import ages, gated_gradient, make_problem, relative_error

import artbp
from artbp import truncation

LAW = truncation.polynomial(4, 4)
LENGTHS = [5, 1, 6]


def start():
    """A problem of 12 steps, ARTBP along three segments, its state, and the gates of a pass."""
    problem = make_problem("linear", 12)
    law = truncation.replay(LENGTHS, LAW)
    estimator = artbp.artbp(problem.cell, problem.loss_fn, law, block_size=4)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    pattern = np.concatenate([np.arange(1, n + 1) == n for n in LENGTHS])
    return problem, estimator, state, np.where(pattern, 0.0, LAW.compensation(ages(pattern)))


@pytest.mark.parametrize("jit", [False, True])
def test_the_sum_of_the_gradients_of_a_pass(jit, float64):
    problem, estimator, state, gates = start()

    def run(params, state):
        return artbp.run_pass(estimator, params, state, problem.stream)

    total, after = (jax.jit(run) if jit else run)(problem.params, state)
    assert relative_error(total, gated_gradient(problem, gates)) < 1e-13
    assert (int(after.position), int(after.num_estimates)) == (0, 3)


def test_the_rest_of_a_pass_folded_by_the_caller(float64):
    """From the second segment on, into a list; the next pass begins with the first length again."""
    problem, estimator, state, gates = start()
    first, state, _ = estimator.estimate(problem.params, state, problem.stream)
    rest, after = artbp.run_pass(
        estimator,
        problem.params,
        state,
        problem.stream,
        fold=lambda folded, grads, info: [*folded, (grads, int(info.length))],
        initial=[],
    )
    assert [length for _, length in rest] == LENGTHS[1:]
    total = jax.tree.map(lambda *leaves: sum(leaves), first, *[grads for grads, _ in rest])
    assert relative_error(total, gated_gradient(problem, gates)) < 1e-13
    assert int(after.position) == 0


def test_sums_are_float32_or_wider():
    """A sum of bfloat16 gradients would stop to grow."""
    estimator = artbp.artbp(
        lambda params, carry, x: (carry, params), lambda params, y, t: y, truncation.replay([1])
    )
    params = jnp.ones((), jnp.bfloat16)
    state = estimator.init(params, jnp.zeros((), jnp.bfloat16), rng_key=jax.random.key(0))
    total, _ = artbp.run_pass(estimator, params, state, artbp.Stream(None, num_steps=300))
    assert total.dtype == jnp.float32
    assert total == 300
