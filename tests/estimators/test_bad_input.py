"""Bad input gives a clear error at the boundary: what was given, what was expected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import make_problem

import artbp
from artbp import truncation

LAW = truncation.polynomial(4, 4)


def estimate(problem, **options):
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW, **options)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    return estimator.estimate(problem.params, state, problem.stream)


def test_a_stream_without_inputs_needs_its_length():
    with pytest.raises(ValueError, match="num_steps"):
        artbp.Stream(None)
    assert artbp.Stream(None, num_steps=5).num_steps == 5


@pytest.mark.parametrize("num_steps", [0, -1, 2.5, True, 2**31])
def test_lengths_of_a_stream_that_are_refused(num_steps):
    with pytest.raises(ValueError, match=r"num_steps|at least one"):
        artbp.Stream(None, num_steps=num_steps)


def test_empty_and_scalar_inputs():
    with pytest.raises(ValueError, match="at least one time step"):
        artbp.Stream(jnp.zeros((0, 3)))
    with pytest.raises(ValueError, match="scalar"):
        artbp.Stream(jnp.zeros(()))


def test_arrays_of_different_lengths():
    problem = make_problem()
    stream = artbp.Stream(problem.stream.xs, problem.stream.targets[:-1])
    with pytest.raises(ValueError, match=r"Stream.targets has shape \(8, 2\).*num_steps = 9"):
        estimate(problem._replace(stream=stream))


def test_integer_params():
    params = {**make_problem().params, "steps": jnp.arange(3)}
    with pytest.raises(TypeError, match=r"\['steps'\] has dtype int32"):
        estimate(make_problem()._replace(params=params))


@pytest.mark.parametrize("name", artbp.REGISTRY)
def test_init_refuses_integer_params_first(name):
    """Before anything is made of them that fails in another way."""
    problem = make_problem()
    estimator = artbp.REGISTRY[name].build(problem.cell, problem.loss_fn, mean_length=3)
    with pytest.raises(TypeError, match=r"params has dtype int32: a gradient exists for float"):
        estimator.init(jnp.arange(3, dtype=jnp.int32), problem.carry, rng_key=jax.random.key(0))


def test_nan_params():
    params = {**make_problem().params, "readout": jnp.full(4, jnp.nan)}
    with pytest.raises(ValueError, match=r"\['readout'\] holds NaN"):
        estimate(make_problem()._replace(params=params))


@pytest.mark.parametrize("policy", ["dynamic", "pow2", "exact"])
def test_a_cell_that_changes_its_carry(policy):
    problem = make_problem()
    for bad, message in (
        (lambda p, s, x: (s.astype(jnp.bfloat16), s), "dtype float32.*dtype bfloat16"),
        (lambda p, s, x: (s[:, :2], s), r"shape \(2, 4\).*shape \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            estimate(problem._replace(cell=bad), policy=policy)


@pytest.mark.parametrize("policy", ["dynamic", "pow2"])
def test_losses_of_the_wrong_shape(policy):
    problem = make_problem()
    matrix = problem._replace(loss_fn=lambda p, y, t: y)
    with pytest.raises(ValueError, match="losses of shape"):
        estimate(matrix, policy=policy)
    mean = make_problem(mask=True)._replace(loss_fn=lambda p, y, t: jnp.mean(y))
    with pytest.raises(ValueError, match="one loss per row"):
        estimate(mean, policy=policy)


@pytest.mark.parametrize("policy", ["pow2", "exact"])
def test_a_host_driven_policy_under_jit(policy):
    problem = make_problem()
    with pytest.raises(ValueError, match="plans segment lengths on the host"):
        jax.jit(lambda: estimate(problem, policy=policy))()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "fast"}, "expected one of 'dynamic', 'pow2', 'exact'"),
        ({"block_size": 0}, "block_size=0"),
        ({"block_size": 2.5}, "block_size=2.5"),
        ({"block_size": True}, "block_size=True"),
        ({"normalizer": 0.0}, "normalizer=0.0"),
        ({"normalizer": float("nan")}, "normalizer=nan"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        estimate(make_problem(), **options)


def test_scratch_of_another_block_size():
    problem = make_problem()
    make = lambda size: artbp.artbp(problem.cell, problem.loss_fn, LAW, block_size=size)  # noqa: E731
    state = make(8).init(problem.params, problem.carry, rng_key=jax.random.key(0))
    for scratch in (state.scratch, ()):
        with pytest.raises(ValueError, match=r"state\.scratch does not belong"):
            make(4).estimate(problem.params, state._replace(scratch=scratch), problem.stream)


def test_numpy_integers_are_integers():
    estimate(make_problem(), block_size=np.int64(4), normalizer=np.float32(2.0))


@pytest.mark.parametrize("length", [0, -2, 3.5, "50", None])
def test_truncation_lengths_that_are_refused(length):
    with pytest.raises(ValueError, match="truncation_length"):
        artbp.tbptt(None, None, truncation_length=length)


@pytest.mark.parametrize("policy", ["dynamic", "pow2"])
def test_resets_of_another_batch(policy):
    problem = make_problem()
    for shape in ((9, 1), (9, 3), (9, 2, 1)):
        stream = artbp.Stream(problem.stream.xs, problem.stream.targets, jnp.zeros(shape, bool))
        with pytest.raises(ValueError, match="resets has shape"):
            estimate(problem._replace(stream=stream), policy=policy)


def test_a_state_beyond_its_stream():
    problem = make_problem(num_steps=20)
    estimator = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=10, policy="pow2")
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    _, state, _ = estimator.estimate(problem.params, state, problem.stream)
    short = artbp.Stream(problem.stream.xs[:6], problem.stream.targets[:6])
    with pytest.raises(ValueError, match="beyond this stream of 6 steps"):
        estimator.estimate(problem.params, state, short)


def test_a_host_driven_policy_in_a_jit_without_arguments():
    problem = make_problem()
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW, policy="pow2")
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    with pytest.raises(ValueError, match="plans segment lengths on the host"):
        jax.jit(lambda: estimator.estimate(problem.params, state, problem.stream)[0])()


def test_a_number_in_place_of_a_law():
    with pytest.raises(TypeError, match="expected a truncation law"):
        artbp.artbp(None, None, 16)


def test_a_normalizer_may_be_an_array_and_mapped_over(float64):
    """It divides the gradient, whatever holds it: a number, an array, or a tracer of `jax.vmap`."""
    problem = make_problem()

    def gradient(normalizer):
        estimator = artbp.tbptt(
            problem.cell, problem.loss_fn, truncation_length=4, normalizer=normalizer
        )
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
        return jax.tree.leaves(estimator.estimate(problem.params, state, problem.stream)[0])

    expected = gradient(1.0)
    for found in (
        gradient(jnp.asarray(2.0)),
        [g[1] for g in jax.vmap(gradient)(jnp.array([1.0, 2.0]))],
    ):
        for leaf, whole in zip(found, expected, strict=True):
            assert jnp.allclose(2 * leaf, whole, rtol=1e-13)
