"""Segments that start from the first carry: what their expected gradient is the gradient of."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import (
    as_function,
    bptt_gradient,
    lengths,
    make_problem,
    one_pass,
    patterns,
    probability,
    relative_error,
)

import artbp
from artbp import truncation

pytestmark = pytest.mark.usefixtures("float64")

NUM_STEPS = 6
LAW = truncation.polynomial(3, 4)
TOLERANCE, VISIBLE = 1e-12, 0.01


def losses(problem, params, first, last):
    """The summed losses of steps first to last − 1 of a run that starts at step `first`.

    params has a leading axis: every step has its own.
    """
    carry, stream, total = problem.carry, problem.stream, 0.0
    for t in range(NUM_STEPS):
        own = jax.tree.map(lambda leaf, t=t: leaf[t], params)
        carry = jax.tree.map(lambda a, b, t=t: jnp.where(t == first, a, b), problem.carry, carry)
        reset = stream.resets[t][:, None]
        carry = jax.tree.map(lambda s, r=reset: jnp.where(r, jnp.zeros_like(s), s), carry)
        carry, y = problem.cell(own, carry, stream.xs[t])
        counted = stream.mask[t] & (first <= t) & (t < last)
        total += jnp.sum(jnp.where(counted, problem.loss_fn(own, y, stream.targets[t]), 0.0))
    return total


def gradients_by_step(problem):
    """{(first, last): the gradient of `losses` by the params of each step}."""
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * NUM_STEPS), problem.params)
    pairs = list(itertools.combinations(range(NUM_STEPS + 1), 2))
    gradient = jax.grad(lambda params, first, last: losses(problem, params, first, last))
    gradients = jax.jit(jax.vmap(gradient, (None, 0, 0)))(params, *np.array(pairs).T)
    return {
        pair: jax.tree.map(lambda leaf, i=i: leaf[i], gradients) for i, pair in enumerate(pairs)
    }


def starts_and_ends(segment_lengths):
    ends = np.cumsum(segment_lengths)
    return list(zip(ends - segment_lengths, ends, strict=True))


def total(trees):
    return jax.tree.map(lambda *leaves: sum(leaves), *trees)


def scaled(tree, factor, steps=slice(None)):
    return jax.tree.map(lambda leaf: factor * leaf[steps].sum(0), tree)


def short_sequences(by_step, segment_lengths):
    """The gradient of the losses of the segments as sequences of their own."""
    return total(scaled(by_step[pair], 1.0) for pair in starts_and_ends(segment_lengths))


def mean_gradient(problem, **options):
    """The estimator's summed gradient of a pass, averaged over all boundary patterns."""

    def gradient(row):
        estimator = artbp.artbp(
            *(problem.cell, problem.loss_fn, truncation.replay(row, LAW)),
            **{"block_size": 3, "segment_start": "initial"} | options,
        )
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
        return artbp.run_pass(estimator, problem.params, state, problem.stream)[0]

    rows = [[*lengths(pattern), *[1] * NUM_STEPS][:NUM_STEPS] for pattern in patterns(NUM_STEPS)]
    gradients = jax.jit(lambda rows: jax.lax.map(gradient, rows))(jnp.asarray(rows, jnp.int32))
    weights = jnp.asarray([probability(pattern, LAW) for pattern in patterns(NUM_STEPS)])
    return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), gradients)


@pytest.fixture(scope="module", params=["lstm", "function"])
def problem(request):
    with jax.enable_x64(True):
        problem = make_problem("lstm", NUM_STEPS, resets=True, mask=True)
        return as_function(problem) if request.param == "function" else problem


@pytest.mark.parametrize("policy", ["dynamic", "exact", "pow2"])
def test_tbptt_is_the_gradient_of_short_sequences(problem, policy):
    estimator = artbp.tbptt(
        *(problem.cell, problem.loss_fn),
        truncation_length=4,
        segment_start="initial",
        policy=policy,
    )
    expected = short_sequences(gradients_by_step(problem), [4, 2])
    found, infos, state = one_pass(estimator, problem)
    assert [int(info.length) for info in infos] == [4, 2]
    assert relative_error(found, expected) < TOLERANCE
    assert relative_error(found, bptt_gradient(problem)) > VISIBLE
    # The next pass, too, starts with the first carry.
    jax.tree.map(np.testing.assert_array_equal, state.carry, problem.carry)


def test_without_compensation_it_is_unbiased_for_random_short_sequences(problem):
    by_step = gradients_by_step(problem)
    expected = total(
        jax.tree.map(
            lambda leaf, p=pattern: probability(p, LAW) * leaf,
            short_sequences(by_step, lengths(pattern)),
        )
        for pattern in patterns(NUM_STEPS)
    )
    assert relative_error(mean_gradient(problem, compensate=False), expected) < TOLERANCE
    assert relative_error(mean_gradient(problem), expected) > VISIBLE


def test_with_compensation_each_step_has_its_effect_on_a_run_that_is_never_cut(problem):
    by_step, terms = gradients_by_step(problem), []
    for pattern in patterns(NUM_STEPS):
        for first, last in starts_and_ends(lengths(pattern)):
            steps = slice(first, last)
            uncut = by_step[first, NUM_STEPS]
            terms.append(scaled(uncut, probability(pattern, LAW), steps))
    expected = total(terms)
    assert relative_error(mean_gradient(problem), expected) < TOLERANCE
    # This is not the gradient of the stream. A carry that goes on gives that one.
    assert relative_error(mean_gradient(problem), bptt_gradient(problem)) > VISIBLE
    carried = mean_gradient(problem, segment_start="carried")
    assert relative_error(carried, bptt_gradient(problem)) < TOLERANCE


def test_another_word_is_refused(problem):
    with pytest.raises(ValueError, match=r"segment_start='zero'; expected 'carried'"):
        artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=3, segment_start="zero")
