"""Target propagation: a plain loop as twin, and its gradient where the targets have converged."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import bptt_gradient, make_problem, one_pass, relative_error

import artbp
from artbp.contrib import target_propagation

pytestmark = pytest.mark.usefixtures("float64")

LENGTH, PENALTY = 2, 3.0


def estimator_of(problem, *, penalty=PENALTY, rate=0.1, num_segments=3, **options):
    return target_propagation(
        problem.cell,
        problem.loss_fn,
        truncation_length=LENGTH,
        num_segments=num_segments,
        penalty=penalty,
        target_optimizer=optax.sgd(rate / penalty),
        **options,
    )


def test_without_steps_it_is_tbptt():
    """Nine steps: the second window ends with a segment of one step and one of none."""
    problem = make_problem("lstm", num_steps=9, resets=True, mask=True)
    total, infos, _ = one_pass(estimator_of(problem, target_steps=0), problem)
    tbptt = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=LENGTH)
    expected, others, _ = one_pass(tbptt, problem)
    assert relative_error(total, expected) < 1e-12
    assert [info.length for info in infos] == [6, 3]
    losses = [sum(float(info.loss_sum) for info in run) for run in (infos, others)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def slow_gradient(problem, rate, target_steps, multiplier_updates):
    """One window of a stream, in Python loops over its segments and steps."""
    stream, num_segments = problem.stream, problem.stream.num_steps // LENGTH

    def segment(params, carry, n):
        loss = 0.0
        for t in range(n * LENGTH, (n + 1) * LENGTH):
            carry = enter(carry, t)
            carry, y = problem.cell(params, carry, stream.xs[t])
            losses = problem.loss_fn(params, y, stream.targets[t])
            loss += jnp.sum(jnp.where(stream.mask[t], losses, 0))
        return carry, loss

    def enter(carry, t):
        return jnp.where(stream.resets[t][:, None], 0.0, carry)

    def objective(params, targets, multipliers):
        total, gaps, carries = 0.0, [], [problem.carry, *targets]
        for n, carry in enumerate(carries):
            after, loss = segment(params, carry, n)
            total += loss
            if n + 1 < num_segments:
                is_reset = stream.resets[(n + 1) * LENGTH][:, None]
                gaps.append(jnp.where(is_reset, 0.0, after - targets[n]))
                total += PENALTY / 2 * jnp.sum((gaps[n] + multipliers[n]) ** 2)
        return total, gaps

    targets, carry = [], problem.carry
    for n in range(num_segments - 1):
        carry, _ = segment(problem.params, carry, n)
        targets.append(carry)
    multipliers = [jnp.zeros_like(carry)] * len(targets)
    slope = jax.jit(jax.grad(objective, argnums=(0, 1), has_aux=True))
    for i in range(max(1, multiplier_updates)):
        for _ in range(target_steps):
            (_, grads), _ = slope(problem.params, targets, multipliers)
            targets = [h - rate / PENALTY * g for h, g in zip(targets, grads, strict=True)]
        _, gaps = slope(problem.params, targets, multipliers)
        if i < multiplier_updates:
            multipliers = [u + gap for u, gap in zip(multipliers, gaps, strict=True)]
    (grads, _), gaps = slope(problem.params, targets, multipliers)
    return grads, sum(jnp.sum(gap**2) for gap in gaps)


def test_a_loop_over_segments():
    problem = make_problem("rnn", num_steps=3 * LENGTH, resets=True, mask=True)
    resets = problem.stream.resets.at[2 * LENGTH, 1].set(True)  # after a target with a loss
    problem = problem._replace(stream=dataclasses.replace(problem.stream, resets=resets))
    options = {"target_steps": 3, "multiplier_updates": 2}
    total, (info,), _ = one_pass(estimator_of(problem, **options), problem)
    expected, gap = slow_gradient(problem, 0.1, **options)
    assert relative_error(total, expected) < 1e-12
    assert info.extra["gap"] == pytest.approx(float(gap), rel=1e-12)


@pytest.fixture(scope="module")
def linear():
    """(a linear cell with quadratic losses; its gradient by BPTT)."""
    with jax.enable_x64(True):
        problem = make_problem("linear", num_steps=4 * LENGTH)
        return problem, bptt_gradient(problem)


def test_the_bias_of_converged_targets_falls_with_the_penalty(linear):
    """As 1/λ. Without steps on the targets, the gradient lacks what crosses between segments."""
    problem, exact = linear

    @jax.vmap
    def gradient(penalty, target_steps):
        options = {"penalty": penalty, "rate": 0.3, "target_steps": target_steps}
        estimator = estimator_of(problem, num_segments=4, **options)
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
        return estimator.estimate(problem.params, state, problem.stream)[0]

    found = jax.jit(gradient)(jnp.array([1e3, 1e4, 1e5, 1e5]), jnp.array([400, 400, 400, 0]))
    errors = [
        relative_error(jax.tree.map(lambda leaf, i=i: leaf[i], found), exact) for i in range(4)
    ]
    np.testing.assert_allclose(np.divide(errors[:2], errors[1:3]), 10, rtol=0.05)
    assert errors[2] < 1e-3 < 0.1 < errors[3]


def test_with_multipliers_the_gradient_is_that_of_bptt_at_any_penalty(linear):
    problem, exact = linear
    options = {"penalty": 100.0, "rate": 0.3, "target_steps": 20, "multiplier_updates": 50}
    total, (info,), _ = one_pass(estimator_of(problem, num_segments=4, **options), problem)
    assert relative_error(total, exact) < 1e-12
    assert info.extra["gap"] < 1e-24


def test_numbers_outside_their_range():
    problem = make_problem("rnn")
    with pytest.raises(ValueError, match="num_segments=1"):
        estimator_of(problem, num_segments=1, target_steps=1)
    with pytest.raises(ValueError, match="target_steps=-1"):
        estimator_of(problem, target_steps=-1)
