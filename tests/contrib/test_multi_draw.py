"""Several draws of boundaries use one forward pass, and are exact by enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.flatten_util import ravel_pytree
from problems import (
    ages,
    gated_gradient,
    make_problem,
    patterns,
    probability,
    relative_error,
)

import artbp
from artbp import truncation
from artbp.contrib.multi_draw import (
    coupling_variance,
    gradients_of_gates,
    multi_draw_gradient,
)

pytestmark = pytest.mark.usefixtures("float64")

NUM_STEPS = 5
LAW = truncation.polynomial(3, 4)


def flat_gradient(problem, gates):
    """Returns the flat gradient [P] for these gates; gates of 1 give BPTT."""
    return ravel_pytree(gated_gradient(problem, gates))[0]


def model(problem):
    return problem.cell, problem.loss_fn


def data(problem):
    return problem.params, problem.carry, problem.stream


def of_all_patterns(problem):
    """Returns gradients of all patterns [patterns, P], their probabilities, and BPTT's."""
    rows = patterns(NUM_STEPS)
    gates = jnp.asarray([np.where(p, 0.0, LAW.compensation(ages(p))) for p in rows])
    gates = jnp.concatenate([gates, jnp.ones((1, NUM_STEPS))])

    @jax.jit
    def both_ways(gates):
        together = gradients_of_gates(*model(problem), *data(problem), gates)
        one_by_one = jax.lax.map(lambda gates: flat_gradient(problem, gates), gates)
        return jax.vmap(lambda tree: ravel_pytree(tree)[0])(together), one_by_one

    flat, one_by_one = map(np.asarray, both_ways(gates))
    np.testing.assert_allclose(flat, one_by_one, rtol=1e-11, atol=1e-13)
    return flat[:-1], np.array([probability(p, LAW) for p in rows]), flat[-1]


@pytest.mark.parametrize("name", ["rnn", "lstm"])
def test_gradients_of_all_patterns_in_one_call(name):
    """Each gradient belongs to its pattern, and their expectation is BPTT."""
    problem = make_problem(name, NUM_STEPS, resets=True, mask=True)
    flat, weights, exact = of_all_patterns(problem)
    assert relative_error(weights @ flat, exact) < 1e-12
    assert relative_error(flat.mean(axis=0), exact) > 0.01  # the control: other weights do not


def test_the_mean_of_draws_is_that_of_their_gates():
    problem, key = make_problem("rnn", NUM_STEPS), jax.random.key(4)

    @jax.jit
    def both_ways(key):
        found = multi_draw_gradient(
            *model(problem), LAW, *data(problem), key, num_draws=3, coupling="stratified"
        )
        gates = artbp.contrib.sample_row_gates(LAW, key, NUM_STEPS, 3, "stratified")
        each = [flat_gradient(problem, gates[:, d]) for d in range(3)]
        return ravel_pytree(found)[0], jnp.stack(each)

    found, each = both_ways(key)
    assert relative_error(found, jnp.mean(each, axis=0)) < 1e-13
    assert relative_error(found, each[0]) > 0.01  # the control: the draws differ


def shapes_of(primitive, jaxpr):
    """Lists the output shapes of a primitive anywhere in a program."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == primitive:
            found += [variable.aval.shape for variable in equation.outvars]
        for inner in jaxprs_in_params(equation.params):
            found += shapes_of(primitive, inner)
    return found


def test_the_cell_runs_forward_once():
    """With D = 7 draws no tanh has an axis of 7. The control has one: its params differ."""
    problem = make_problem("rnn", NUM_STEPS)
    gates = jnp.ones((7, NUM_STEPS))

    def ours(params):
        return gradients_of_gates(*model(problem), params, problem.carry, problem.stream, gates)

    def control(params):
        params = jax.tree.map(lambda leaf: jnp.stack(7 * [leaf]), params)
        return jax.vmap(lambda p, g: gated_gradient(problem, g, p))(params, gates)

    shapes = shapes_of("tanh", jax.make_jaxpr(ours)(problem.params).jaxpr)
    assert shapes and all(7 not in shape for shape in shapes)
    (shape,) = shapes_of("tanh", jax.make_jaxpr(control)(problem.params).jaxpr)
    assert 7 in shape


@pytest.mark.parametrize("traced", [True, False])
def test_cells_that_cannot_be_fused(traced):
    """One cell closes over a traced array under vmap; the other has no inputs."""
    gates = jnp.asarray([[1.0, 0.0, 2.0, 1.0], [1.0, 1.0, 1.0, 0.5]])
    xs = jnp.asarray([0.5, -1.0, 2.0, 0.3]) if traced else None
    stream = artbp.Stream(xs, jnp.arange(4.0), num_steps=4)

    def losses(params, y, target):
        del params
        return (y - target) ** 2

    def gradients(decay, by_hand):
        def cell(params, carry, x):
            carry = decay * carry + params * (1.0 if x is None else x)
            return carry, carry

        def loss(params, gates):
            _, ys = artbp.unroll(cell, params, jnp.asarray(0.1), xs, gates=gates)
            return jnp.sum(losses(params, ys, stream.targets))

        if by_hand:
            return jax.vmap(jax.grad(loss), (None, 0))(jnp.asarray(0.7), gates)
        return gradients_of_gates(cell, losses, 0.7, jnp.asarray(0.1), stream, gates)

    decays = jnp.asarray([0.5, 0.9])
    run = jax.vmap(gradients, (0, None)) if traced else lambda d, h: gradients(0.9, h)
    found, expected = run(decays, False), run(decays, True)
    assert relative_error(found, expected) < 1e-14
    assert relative_error(found[..., 0], expected[..., 1]) > 0.01  # the control: gates matter


def test_independent_draws_divide_the_variance():
    """Four draws have a quarter of the enumerated variance, within five standard errors."""
    problem = make_problem("rnn", NUM_STEPS)
    flat, weights, mean = of_all_patterns(problem)
    of_one = weights @ np.sum((flat - mean) ** 2, axis=1)

    @jax.jit
    def sample(key):
        return coupling_variance(
            *model(problem),
            LAW,
            *data(problem),
            key,
            coupling="independent",
            num_samples=4000,
            num_draws=4,
            batch_size=500,
        )

    found = sample(jax.random.key(7))
    assert abs(found.trace - of_one / 4) < 5 * found.standard_error
    assert found.standard_error < 0.01 * of_one  # a third or a fifth would be far outside


def test_the_trace_of_coupled_rows_is_that_of_their_gradients():
    """Samples equal those drawn one by one from the same keys; 5 of 6 in batches of 3."""
    problem, key = make_problem("rnn", NUM_STEPS), jax.random.key(7)
    sample_keys = jnp.ravel(jax.random.split(key, (2, 3)))[:5]

    @jax.jit
    def both_ways(key):
        found = coupling_variance(
            *model(problem),
            LAW,
            *data(problem),
            key,
            coupling="antithetic",
            num_samples=5,
            batch_size=3,
        )

        def of_key(sample_key):
            gates = artbp.contrib.sample_row_gates(LAW, sample_key, NUM_STEPS, 2, "antithetic")
            return flat_gradient(problem, gates) - flat_gradient(problem, jnp.ones(NUM_STEPS))

        return found, jax.lax.map(of_key, sample_keys)

    found, differences = both_ways(key)
    distances = np.sum(np.square(differences), axis=1)
    expected = np.mean(distances), np.std(distances, ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_bad_arguments_of_draws():
    problem, key = make_problem("rnn", NUM_STEPS), jax.random.key(0)
    with pytest.raises(ValueError, match="gates has shape"):
        gradients_of_gates(*model(problem), *data(problem), jnp.ones((NUM_STEPS,)))
    with pytest.raises(ValueError, match="coupling='any'"):
        multi_draw_gradient(*model(problem), LAW, *data(problem), key, num_draws=2, coupling="any")
    with pytest.raises(ValueError, match="num_samples=1"):
        coupling_variance(
            *model(problem), LAW, *data(problem), key, coupling="shared", num_samples=1
        )
    with pytest.raises(ValueError, match="num_draws"):  # no rows to couple
        coupling_variance(
            lambda params, carry, x: (carry, carry),
            lambda params, y, target: y,
            LAW,
            {"a": jnp.ones(())},
            jnp.ones(()),
            problem.stream,
            key,
            coupling="shared",
            num_samples=2,
        )
