"""Unbiased TBPTT with a critic: unbiased whatever it predicts, and its own learning."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import bptt_gradient, make_problem, one_pass, relative_error

import artbp
from artbp import truncation

pytestmark = pytest.mark.usefixtures("float64")

NUM_STEPS, LENGTH = 9, 2  # five windows, the last of one step
NUM_WINDOWS = -(-NUM_STEPS // LENGTH)
LAW = truncation.polynomial(1.7, 4)
SMALL = {"stored_windows": 1, "stored_carries": 2}


def with_critic(name="rnn", **options):
    """A problem whose params hold a random critic, linear in the carry."""
    problem = make_problem(name, NUM_STEPS, **options)
    leaves, treedef = jax.tree.flatten(problem.carry)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    matrices = [
        jax.random.normal(k, leaf.shape[-1:] * 2) for k, leaf in zip(keys, leaves, strict=True)
    ]
    params = {"model": problem.params, "critic": treedef.unflatten(matrices)}

    def critic(params, carry):
        return jax.tree.map(lambda s, m: jnp.tanh(s) @ m, carry, params["critic"])

    def inner(function):
        return lambda params, *rest: function(params["model"], *rest)

    cell = problem.cell.with_params(lambda params: params["model"])
    return problem._replace(cell=cell, loss_fn=inner(problem.loss_fn), params=params), critic


def build(problem, law, critic, **options):
    return artbp.unbiased_tbptt(
        problem.cell,
        problem.loss_fn,
        law,
        truncation_length=LENGTH,
        critic=critic,
        **SMALL,
        **options,
    )


def expectation(problem, critic, mode):
    """The mean of the summed gradients of one pass over all look-backs, and their variance."""
    rows = np.array(list(itertools.product(*(range(1, n + 2) for n in range(NUM_WINDOWS)))))
    n = np.arange(NUM_WINDOWS)
    chance = np.where(rows <= n, LAW.survival(rows - 1) - LAW.survival(rows), LAW.survival(n))
    probabilities = np.prod(chance, axis=1)

    def gradient(row):
        estimator = build(problem, truncation.replay(row, LAW), critic, mode=mode)
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
        return artbp.run_pass(estimator, problem.params, state, problem.stream)[0]["model"]

    gradients = jax.jit(lambda rows: jax.lax.map(gradient, rows))(jnp.asarray(rows, jnp.int32))
    mean = jax.tree.map(lambda leaf: jnp.tensordot(probabilities, leaf, 1), gradients)
    deviations = jax.tree.map(lambda leaf, m: (leaf - m[None]) ** 2, gradients, mean)
    return mean, sum(
        float(jnp.tensordot(probabilities, leaf, 1).sum()) for leaf in jax.tree.leaves(deviations)
    )


@pytest.mark.parametrize("mode", ["stored", "reforward"])
@pytest.mark.parametrize("name", ["rnn", "lstm"])
def test_it_is_unbiased_whatever_the_critic_predicts(name, mode):
    problem, critic = with_critic(name, resets=True, mask=True)
    mean, _ = expectation(problem, critic, mode)
    assert relative_error(mean, bptt_gradient(problem)["model"]) < 1e-12


def test_a_wrong_critic_biases_what_never_looks_back():
    """The control: the same predictions at the edges of TBPTT, without the correction."""
    problem, critic = with_critic()
    total, _, _ = one_pass(build(problem, truncation.fixed(1), critic), problem)
    assert relative_error(total["model"], bptt_gradient(problem)["model"]) > 0.1


def exact_at_edges(problem):
    """A critic that knows δ at each edge of a pass with frozen params, by the carry it is given."""
    stream, carry = problem.stream, problem.carry
    carries, deltas = [], []
    for first in range(LENGTH, NUM_STEPS, LENGTH):
        before = artbp.unroll(problem.cell, problem.params, carry, stream.xs[:first])[0]

        def later(carry, first=first):
            _, ys = artbp.unroll(problem.cell, problem.params, carry, stream.xs[first:])
            losses = jax.vmap(problem.loss_fn, (None, 0, 0))
            return jnp.sum(losses(problem.params, ys, stream.targets[first:]))

        carries.append(before)
        deltas.append(jax.grad(later)(before))
    carries, deltas = jnp.stack(carries), jnp.stack(deltas)

    def critic(params, carry):
        distance = jnp.sum((carries - carry[None]) ** 2, axis=(1, 2))
        return deltas[jnp.argmin(distance)] * params["scale"]

    return critic


def test_a_critic_that_is_right_leaves_no_variance_and_no_bias():
    plain, _ = with_critic()
    critic = exact_at_edges(plain)
    model = plain.params["model"]
    problem = plain._replace(params={"model": model, "scale": jnp.ones(())})
    expected = bptt_gradient(problem)["model"]
    total, infos, _ = one_pass(build(problem, truncation.fixed(1), critic), problem)
    assert relative_error(total["model"], expected) < 1e-12
    assert max(float(info.extra["critic_error"]) for info in infos) < 1e-20
    assert float(infos[1].extra["critic_target"]) > 1e-3
    variances = []
    for scale in (0.0, 0.7, 1.0):  # zero is no critic
        scaled = problem._replace(params={"model": model, "scale": jnp.asarray(scale)})
        mean, variance = expectation(scaled, critic, "stored")
        assert relative_error(mean, expected) < 1e-12
        variances.append(variance)
    assert variances[0] > 5 * variances[1] > 0
    assert variances[2] < 1e-20 * variances[0]


def test_a_critic_of_zeros_changes_nothing():
    problem, _ = with_critic()
    law, bare = truncation.geometric(1.5), make_problem("rnn", NUM_STEPS)
    plain, _, _ = one_pass(build(bare, law, None), bare)
    zeros, _, _ = one_pass(
        build(problem, law, lambda params, carry: 0 * carry @ params["critic"]), problem
    )
    assert relative_error(zeros["model"], plain) < 1e-12


def test_the_critic_learns_by_regression_on_what_came_back():
    """By hand, from two windows: δ of the second one with the prediction at its end."""
    problem, critic = with_critic()
    estimator = build(problem, truncation.fixed(1), critic)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    first, state, info = estimator.estimate(problem.params, state, problem.stream)
    assert not np.any(first["critic"])  # there is no edge before the first window
    assert float(info.extra["critic_target"]) == 0
    entering = state.carry
    found, state, info = estimator.estimate(problem.params, state, problem.stream)
    leaving = state.carry

    def window(carry):
        xs, targets = problem.stream.xs[2:4], problem.stream.targets[2:4]
        last, ys = artbp.unroll(problem.cell, problem.params, carry, xs)
        losses = jax.vmap(problem.loss_fn, (None, 0, 0))(problem.params, ys, targets)
        return jnp.sum(losses) + jnp.sum(critic(problem.params, leaving) * last)

    delta = jax.grad(window)(entering)

    def regression(params):
        return jnp.sum((critic(params, entering) - delta) ** 2) / 2

    loss, expected = jax.value_and_grad(regression)(problem.params)
    assert relative_error(found["critic"], expected["critic"]) < 1e-12
    assert float(info.extra["critic_error"]) == pytest.approx(2 * float(loss), rel=1e-12)
    assert float(info.extra["critic_target"]) == pytest.approx(float(jnp.sum(delta**2)), rel=1e-12)


@pytest.mark.parametrize("ends", [True, False])
def test_a_stream_that_stops_before_its_arrays_do(ends):
    """The prediction behind the last step of a sequence is zero, wherever that step is."""
    problem, critic = with_critic()
    stop = NUM_STEPS - 2
    shorter = artbp.Stream(problem.stream.xs[:stop], problem.stream.targets[:stop])
    expected = bptt_gradient(problem._replace(stream=shorter))["model"]
    stream = dataclasses.replace(problem.stream, stop=stop) if ends else shorter
    estimator = build(problem, truncation.never(), critic)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    for _ in range(2):  # passes
        total, state = artbp.run_pass(estimator, problem.params, state, stream)
        assert relative_error(total["model"], expected) < 1e-12


def test_carries_with_integers_and_complex_numbers():
    """Full BPTT whatever the critic says, and a real gradient of the critic."""
    problem, _ = with_critic()
    keys = jax.random.split(jax.random.key(2), 2)

    def cell(params, carry, x):
        state, count = carry
        turned = state * jax.lax.complex(params["w"], 0.3 * params["w"])
        state = turned + jnp.sum(x, axis=-1, keepdims=True).astype(complex)
        return (state, count + 1), state[:, 0].real + state[:, 0].imag ** 2

    problem = problem._replace(
        cell=cell,
        loss_fn=lambda params, y, target: (y - target) ** 2,
        params={"w": jnp.asarray(0.9), "critic": jax.random.normal(keys[0], (3,))},
        carry=(jnp.ones((2, 3), complex), jnp.zeros((2,), int)),
    )

    def critic(params, carry):
        return carry[0] * params["critic"][None].astype(complex), carry[1]

    total, _, _ = one_pass(build(problem, truncation.never(), critic), problem)
    assert relative_error(total["w"], bptt_gradient(problem)["w"]) < 1e-12
    assert np.isfinite(total["critic"]).all()
    assert np.abs(total["critic"]).max() > 0


def test_shapes_of_the_critic():
    problem, _ = with_critic()
    estimator = build(problem, LAW, lambda params, carry: (carry @ params["critic"])[:, :2])
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"critic returned arrays of shapes \(2, 2\).*\(2, 4\)"):
        estimator.estimate(problem.params, state, problem.stream)
