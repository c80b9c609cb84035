"""Values that `loss_fn` returns beside the losses: masked or weighted, summed into `info.extra`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import REGISTRY_ROWS, make_problem, one_pass

import artbp

rows = pytest.mark.parametrize("name", REGISTRY_ROWS)


def with_extra(problem):
    """The same losses, and beside them a float and a bool."""

    def loss_fn(params, y, target):
        error = y @ params["readout"] - target
        return problem.loss_fn(params, y, target), {"error": error, "is_low": error < 0}

    return problem._replace(loss_fn=loss_fn)


def with_weights(problem):
    """The same problem with a float mask."""
    stream = problem.stream
    weights = np.random.default_rng(0).choice([0.0, 0.3, 1.0, 2.6], stream.targets.shape)
    return problem._replace(stream=dataclasses.replace(stream, mask=weights))


def expected_sums(problem):
    stream = problem.stream
    _, ys = artbp.unroll(
        problem.cell, problem.params, problem.carry, stream.xs, resets=stream.resets
    )
    error = ys @ problem.params["readout"] - stream.targets
    weights = jnp.asarray(stream.mask, error.dtype)
    return {"error": jnp.sum(weights * error), "is_low": jnp.sum(weights[error < 0])}


@rows
def test_they_are_summed_where_losses_count(name, float64):
    """Over a pass, with resets and a mask; the gradients are those of the losses alone."""
    plain = make_problem("lstm", 11, resets=True, mask=True)
    problem, row = with_extra(plain), artbp.REGISTRY[name]
    total, infos, _ = one_pass(row.build(problem.cell, problem.loss_fn, 4), problem)
    if row.exact:
        alone, _, _ = one_pass(row.build(plain.cell, plain.loss_fn, 4), plain)
        jax.tree.map(np.testing.assert_array_equal, total, alone)
    for key, expected in expected_sums(problem).items():
        found = sum(info.extra[key] for info in infos)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


# One for each loop that sums them.
@pytest.mark.parametrize("name", ["bptt", "tbptt_window_losses", "unbiased_tbptt", "rtrl", "pes"])
def test_a_float_mask_weights_them(name, float64):
    """Flags too: their sums are then floats."""
    problem = with_weights(with_extra(make_problem("lstm", 11, resets=True)))
    estimator = artbp.REGISTRY[name].build(problem.cell, problem.loss_fn, 4)
    _, infos, _ = one_pass(estimator, problem)
    for key, expected in expected_sums(problem).items():
        np.testing.assert_allclose(sum(info.extra[key] for info in infos), expected, rtol=1e-12)


@pytest.mark.parametrize("given", [lambda problem: problem, with_weights])
@pytest.mark.parametrize("policy", ["exact", "pow2"])
def test_host_driven_policies(policy, given, float64):
    problem = given(with_extra(make_problem("lstm", 11, resets=True, mask=True)))
    estimator = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=4, policy=policy)
    _, infos, _ = one_pass(estimator, problem)
    for key, expected in expected_sums(problem).items():
        np.testing.assert_allclose(sum(info.extra[key] for info in infos), expected, rtol=1e-12)


@pytest.mark.parametrize("given", [lambda problem: problem, with_weights])
def test_evaluation(given, float64):
    problem = given(with_extra(make_problem("lstm", 11, resets=True, mask=True)))
    found = artbp.evaluate(*problem, chunk_size=4)
    for key, expected in expected_sums(problem).items():
        np.testing.assert_allclose(found.extra[key], expected, rtol=1e-12)


def run(loss_fn, estimator=artbp.rtrl):
    problem = make_problem()
    return one_pass(estimator(problem.cell, loss_fn), problem._replace(loss_fn=loss_fn))


@pytest.mark.parametrize("estimator", [artbp.bptt, artbp.rtrl])
@pytest.mark.parametrize(
    "extra", [{"y": jnp.zeros((2, 4))}, {"y": jnp.zeros(())}, jnp.zeros(2), {"y": 1.0}]
)
def test_values_of_another_shape(extra, estimator):
    with pytest.raises(ValueError, match=r"expected \(losses, extra\)"):
        run(lambda params, y, target: (y @ params["readout"], extra), estimator)


def test_a_name_that_the_estimator_has():
    problem = make_problem()

    def loss_fn(params, y, target):
        losses = problem.loss_fn(params, y, target)
        return losses, {"look_back": losses}

    law = artbp.truncation.geometric(2)
    with pytest.raises(ValueError, match="look_back"):
        run(loss_fn, lambda *f: artbp.unbiased_tbptt(*f, law, truncation_length=3))


def test_independent_runs_refuse_them():
    problem = with_extra(make_problem())
    law = artbp.truncation.geometric(2)
    functions = lambda params, aux, *_: (params, aux), lambda params, aux: aux > 0
    runs = artbp.contrib.independent_runs(problem.cell, problem.loss_fn, law, *functions)
    state = runs.init(problem.carry, jax.random.split(jax.random.key(0), 2))
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), problem.params)
    with pytest.raises(ValueError, match="error"):
        runs.run(params, jnp.zeros(2), state, problem.stream)
