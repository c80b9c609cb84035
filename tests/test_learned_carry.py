"""A first carry made from the params: its gradient is that of a loop that makes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import lengths, make_problem, one_pass, patterns, probability, relative_error

import artbp

NUM_STEPS, NUM_ROWS = 6, 2
RESETS = np.array([[0, 0], [0, 0], [1, 0], [0, 0], [0, 1], [0, 0]], bool)


def make_carry(params):
    return jnp.broadcast_to(jnp.tanh(params["first"])[None], (NUM_ROWS, 4))


def learned_problem():
    problem = make_problem("rnn", NUM_STEPS, NUM_ROWS)
    params = problem.params | {"first": jnp.arange(4.0) / 4}
    cell, carry = artbp.learned_carry(problem.cell, make_carry, params)
    stream = artbp.Stream(problem.stream.xs, problem.stream.targets, resets=RESETS)
    return problem._replace(params=params, stream=stream), cell, carry


def gradient_of_loop(problem):
    """Without our code: a loop that begins, also after a reset, with what `make_carry` makes."""

    def loss(params):
        carry, total = make_carry(params), 0.0
        for t in range(NUM_STEPS):
            carry = jnp.where(RESETS[t][:, None], make_carry(params), carry)
            carry, y = problem.cell(params, carry, problem.stream.xs[t])
            total += jnp.sum(problem.loss_fn(params, y, problem.stream.targets[t]))
        return total

    return jax.grad(loss)(problem.params)


@pytest.mark.parametrize("name", ["bptt", "rtrl", "tbptt"])
def test_exact_rows(name, float64):
    """Two passes, so that the second begins with the learned carry again."""
    problem, cell, carry = learned_problem()
    estimator = artbp.REGISTRY[name].build(cell, problem.loss_fn, NUM_STEPS)
    expected = gradient_of_loop(problem)
    state = estimator.init(problem.params, carry, rng_key=jax.random.key(0))
    for _ in range(2):
        total, is_over = jax.tree.map(jnp.zeros_like, problem.params), False
        while not is_over:
            grads, state, info = estimator.estimate(problem.params, state, problem.stream)
            total, is_over = jax.tree.map(jnp.add, total, grads), info.end_of_stream
        assert relative_error(total, expected) < 1e-12
        assert np.abs(total["first"]).max() > 1e-3


def test_artbp_is_unbiased(float64):
    """The mean over all patterns of boundaries, weighted by their probabilities."""
    problem, cell, carry = learned_problem()
    law = artbp.truncation.geometric(2.5)
    gradient = jax.jit(
        jax.grad(
            lambda params, gates: jnp.sum(
                jax.vmap(problem.loss_fn, (None, 0, 0))(
                    params,
                    artbp.unroll(
                        cell, params, carry, problem.stream.xs, gates=gates, resets=RESETS
                    )[1],
                    problem.stream.targets,
                )
            )
        )
    )
    mean = jax.tree.map(jnp.zeros_like, problem.params)
    for pattern in patterns(NUM_STEPS):
        ages = np.concatenate([np.arange(1, n + 1) for n in lengths(pattern)])
        gates = np.where(pattern, 0.0, 1 / (1 - law.hazard(ages)))
        weight = probability(pattern, law)
        found = gradient(problem.params, gates)
        mean = jax.tree.map(lambda total, x, w=weight: total + w * x, mean, found)
    assert relative_error(mean, gradient_of_loop(problem)) < 1e-12


def test_parts_that_are_not_learned(float64):
    """A counter that goes on, and a part that resets set to the initial carry."""
    problem, _, _ = learned_problem()

    def cell(params, carry, x):
        hidden, count, other = carry
        hidden, y = problem.cell(params, hidden + other[:, None], x)
        return (hidden, count + 1, other), y

    def make(params):
        return make_carry(params), None, None

    carry = (problem.carry, jnp.zeros((), jnp.int32), jnp.full(NUM_ROWS, 0.2))
    cell, carry = artbp.learned_carry(cell, make, problem.params, carry)
    initial = artbp.LearnedCarry((problem.carry, None, jnp.full(NUM_ROWS, 0.2)), carry.has_begun)
    estimator = artbp.bptt(cell, problem.loss_fn)
    state = estimator.init(problem.params, carry, rng_key=jax.random.key(0), initial_carry=initial)
    total, state, _ = estimator.estimate(problem.params, state, problem.stream)
    assert int(state.carry.carry[1]) == NUM_STEPS
    other = problem._replace(cell=lambda p, s, x: problem.cell(p, s + 0.2, x))
    assert relative_error(total, gradient_of_loop(other)) < 1e-12


def test_make_carry_of_another_type():
    problem, _, _ = learned_problem()
    with pytest.raises(ValueError, match=r"make_carry\(params\) returned .*\(4,\).*expected"):
        artbp.learned_carry(problem.cell, lambda p: p["first"], problem.params, problem.carry)
    with pytest.raises(ValueError, match=r"no carry was given.*learned_carry\(\.\.\., carry="):
        artbp.learned_carry(
            learned_problem()[1], lambda p: (make_carry(p), None), learned_problem()[0].params
        )
    with pytest.raises(ValueError, match="no array"):
        artbp.learned_carry(problem.cell, lambda p: None, problem.params)


def test_another_number_of_rows_than_the_carry_has():
    problem, cell, carry = learned_problem()
    carry = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), carry)
    with pytest.raises(ValueError, match=r"shape \(2, 4\), but the carry has shape \(4, 4\)"):
        jax.eval_shape(cell, problem.params, carry, jnp.zeros((4, 3)))


def test_a_first_carry_made_from_the_params_is_refused():
    problem, _, _ = learned_problem()
    params = problem.params | {"first": jnp.arange(4.0)}
    carry = jnp.broadcast_to(params["first"], (NUM_ROWS, 4))
    estimator = artbp.bptt(problem.cell, problem.loss_fn)
    words = r"^carry is params\['first'\].*no gradient.*learned_carry"
    with pytest.raises(ValueError, match=words):
        estimator.init(params, carry, rng_key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"^initial_carry is params\['first'\]"):
        options = {"rng_key": jax.random.key(0), "initial_carry": carry}
        estimator.init(params, problem.carry, **options)


@pytest.mark.parametrize("copy", ["fast weights", "average"])
def test_a_copy_that_may_be_meant_is_named_in_a_warning(copy):
    """Of a matrix in each row, or of a leaf without rows."""
    problem, _, _ = learned_problem()
    weights = jnp.arange(8.0).reshape(2, 4)
    rows = jnp.broadcast_to(weights, (NUM_ROWS, 2, 4)) if copy == "fast weights" else weights
    estimator = artbp.rtrl(lambda params, carry, x: (carry, carry[0]), problem.loss_fn)
    with pytest.warns(UserWarning, match=r"carry\[1\] is params\['w'\].*ignore this warning"):
        estimator.init(
            problem.params | {"w": weights}, (problem.carry, rows), rng_key=jax.random.key(0)
        )


@pytest.mark.parametrize("policy", ["dynamic", "exact", None])
def test_unused_params_are_named(policy):
    """By the two kinds of kernels, and by the rows without one (None)."""
    problem, _, _ = learned_problem()
    functions = problem.cell, problem.loss_fn
    if policy is None:
        estimator = artbp.rtrl(*functions)
    else:
        estimator = artbp.tbptt(*functions, truncation_length=3, policy=policy)
    with pytest.warns(UserWarning, match=r"params\['first'\]: used neither.*learned_carry"):
        one_pass(estimator, problem)
