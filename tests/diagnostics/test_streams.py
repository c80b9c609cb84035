"""Diagnostics run the steps of a stream after its history and before its padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import SmallProblem

import artbp
from artbp import truncation
from artbp.contrib import coupling_variance, multi_draw_gradient, sampled_bias
from artbp.diagnostics import (
    exact_expectation,
    gradients_of_gates,
    lag_profile,
    look_back_profile,
    truncation_covariance,
    truncation_variance,
    variance_along,
)

pytestmark = pytest.mark.usefixtures("float64")

LAW = truncation.polynomial(3, 4)
KEY = jax.random.key(0)


def cell(theta, carry, x):
    carry = 0.5 * carry + theta * x
    return carry, carry


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(3), 4)
        stream = artbp.Stream(
            *(jax.random.normal(key, (6, 2)) for key in keys[:2]),
            *(
                jax.random.bernoulli(key, chance, (6, 2))
                for key, chance in zip(keys[2:], (0.15, 0.7), strict=True)
            ),
        )
        return SmallProblem(
            cell, lambda theta, y, target: (y - target) ** 2, jnp.asarray(0.7), jnp.zeros(2), stream
        )


def part_of_a_sequence(stream, **options):
    """The same steps to run, with three older steps and two steps of padding around them."""
    fields = stream.xs, stream.targets, stream.resets, stream.mask
    around = (jnp.concatenate([leaf[:3], leaf, leaf[-2:]]) for leaf in fields)
    options = {"ends": False, **options}
    return artbp.Stream(*around, history=3, stop=np.int32(9), **options)


def expectation(cell, loss_fn, *data):
    return exact_expectation(lambda law: artbp.artbp(cell, loss_fn, law, block_size=4), LAW, *data)


DIAGNOSTICS = {
    "covariance": lambda c, f, *data: truncation_covariance(c, f, LAW, *data),
    "trace": lambda c, f, *data: truncation_variance(c, f, LAW, *data, rng_key=KEY, num_samples=3),
    "variance along": lambda c, f, p, *data: variance_along(c, f, LAW, p, *data, p),
    "gates": lambda c, f, *data: gradients_of_gates(c, f, *data, jnp.full((2, 6), 0.5)),
    "lags": lambda c, f, *data: lag_profile(c, f, *data, num_lags=3, rng_key=KEY),
    "look-backs": lambda c, f, *data: look_back_profile(
        c, f, *data, truncation_length=2, num_windows=2
    ),
    "bias": lambda c, f, *data: sampled_bias(c, f, LAW, *data, KEY, num_draws=2, batch_size=2),
    "draws": lambda c, f, *data: multi_draw_gradient(c, f, LAW, *data, KEY, num_draws=2),
    "coupling": lambda c, f, *data: coupling_variance(
        c, f, LAW, *data, KEY, coupling="antithetic", num_samples=2, batch_size=2
    ),
}


def run(diagnostic, problem, stream):
    found = diagnostic(problem.cell, problem.loss_fn, problem.params, problem.carry, stream)
    return [leaf for leaf in jax.tree.leaves(found) if not isinstance(leaf, str)]


# These call the diagnostics of the other cases.
OF_OTHERS = ("bias", "coupling")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in OF_OTHERS else []) for n in DIAGNOSTICS],
)
def test_history_and_padding_change_nothing(name, problem):
    found = run(DIAGNOSTICS[name], problem, part_of_a_sequence(problem.stream))
    expected = run(DIAGNOSTICS[name], problem, problem.stream)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_expectation_needs_the_end_of_the_sequence(problem):
    last = part_of_a_sequence(problem.stream, ends=True)
    found, expected = (run(expectation, problem, each) for each in (last, problem.stream))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="goes on in another one"):
        run(expectation, problem, part_of_a_sequence(problem.stream))


def test_a_traced_stop_is_refused(problem):
    stream = part_of_a_sequence(problem.stream)
    with pytest.raises(ValueError, match=r"Stream\.stop is traced"):
        jax.jit(lambda stream: run(DIAGNOSTICS["gates"], problem, stream))(stream)


class Unhashable:
    """A function without a hash, as a dataclass with `__call__` is by default."""

    __hash__ = None

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)


@pytest.mark.parametrize("name", list(DIAGNOSTICS))
def test_functions_without_a_hash(name, problem):
    expected = run(DIAGNOSTICS[name], problem, problem.stream)
    functions = {"cell": Unhashable(problem.cell), "loss_fn": Unhashable(problem.loss_fn)}
    found = run(DIAGNOSTICS[name], problem._replace(**functions), problem.stream)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def gradient_report(cell, loss_fn, *data):
    return artbp.diagnostics.gradient_report(
        cell, loss_fn, *data, window_length=3, truncation_lengths=[1], laws=[LAW], rng_key=KEY
    )


def test_the_gradient_report_of_functions_without_a_hash(problem):
    stream = problem.stream
    fields = stream.xs, stream.targets, stream.resets, stream.mask
    stream = artbp.Stream(*(jnp.concatenate([leaf] * 4) for leaf in fields))
    expected = run(gradient_report, problem, stream)
    functions = {"cell": Unhashable(problem.cell), "loss_fn": Unhashable(problem.loss_fn)}
    for one, other in zip(
        run(gradient_report, problem._replace(**functions), stream), expected, strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_carry_without_floats_sends_nothing_back(problem):
    def cell(theta, carry, x):
        return carry + 1, theta * x

    problem = problem._replace(cell=cell, carry=jnp.zeros((2,), jnp.int32))
    for name in ("trace", "variance along", "covariance"):
        found = run(DIAGNOSTICS[name], problem, problem.stream)
        assert np.max(np.abs(found[0])) == 0
    with pytest.raises(ValueError, match="The carry has no floats"):
        run(DIAGNOSTICS["lags"], problem, problem.stream)
