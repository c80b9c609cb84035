"""The whole-run trainer against its docstring, a loop in Python."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import make_problem, relative_error

import artbp
from experiments.common.whole_run import train_whole

EDGES = np.array([0, 5, 20, 40])


def in_python(estimator, optimizer, problem, key):
    params, opt_state = problem.params, optimizer.init(problem.params)
    state = estimator.init(params, problem.carry, rng_key=key)
    sums, counts, step, lengths = np.zeros(3), np.zeros(3), 0, []
    while step < problem.stream.num_steps:
        grads, state, info = estimator.estimate(params, state, problem.stream)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        index = np.searchsorted(EDGES, step, side="right") - 1
        sums[index] += info.loss_sum
        counts[index] += info.num_losses
        step += int(info.length)
        lengths.append(int(info.length))
    with np.errstate(invalid="ignore"):  # a bin that no segment begins in
        return params, sums / counts, lengths


@pytest.mark.parametrize("name", ["artbp_polynomial_4", "adaptive_tbptt"])
def test_equals_the_loop_in_python_for_every_learning_rate(name, float64):
    problem = make_problem("rnn", 40, mask=True)
    estimator = artbp.REGISTRY[name].build(problem.cell, problem.loss_fn, 4)
    rates, key = jnp.array([0.001, 0.01]), jax.random.key(3)

    def run(rate):
        arguments = (problem.params, problem.carry, problem.stream, key)
        return train_whole(estimator, optax.adam, rate, *arguments, edges=EDGES)

    outcome = jax.jit(jax.vmap(run))(rates)
    for i, rate in enumerate(rates):
        params, loss, lengths = in_python(estimator, optax.adam(rate), problem, key)
        one = jax.tree.map(lambda leaf, i=i: leaf[i], outcome)
        assert relative_error(one.params, params) < 1e-9
        np.testing.assert_allclose(one.loss, loss, rtol=1e-9)
        assert int(one.num_updates) == len(lengths)
        assert int(one.longest) == max(lengths)
        assert float(one.largest) >= max(float(jnp.abs(x).max()) for x in jax.tree.leaves(params))
    assert (
        relative_error(
            jax.tree.map(lambda leaf: leaf[0], outcome.params),
            jax.tree.map(lambda leaf: leaf[1], outcome.params),
        )
        > 1e-3
    )


def test_an_optimiser_sees_the_time_step_and_what_the_estimator_says(float64):
    seen = []

    def make_optimizer(rate):
        def update(updates, state, params=None, *, time_step, learning_rate_factor, **extra):
            jax.debug.callback(lambda *a: seen.append(a), time_step, learning_rate_factor)
            return jax.tree.map(lambda g: -rate * g, updates), state

        return optax.GradientTransformationExtraArgs(lambda params: (), update)

    problem = make_problem("rnn", 30)
    estimator = artbp.awd_lstm_bptt(problem.cell, problem.loss_fn, base_length=10, shortest=2)
    arguments = (problem.params, problem.carry, problem.stream, jax.random.key(0))
    train_whole(estimator, make_optimizer, 0.1, *arguments, edges=np.array([0, 30]))
    jax.effects_barrier()
    steps = sorted(int(step) for step, _ in seen)
    assert steps[-1] == 30
    lengths = np.diff([0, *steps])
    factors = [float(factor) for _, factor in sorted(seen, key=lambda pair: int(pair[0]))]
    np.testing.assert_allclose(factors, lengths / 10)
