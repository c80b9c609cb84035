"""The variance of random look-backs by its formula, and the law that minimises it."""

import itertools

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from problems import make_problem
from scipy import optimize

import artbp
from artbp import truncation
from artbp.truncation.look_back import best_survival

LENGTH, NUM_WINDOWS = 2, 4


def look_back_gradients(problem):
    """The estimates of the last window for every look-back, [windows, P], without compensation."""
    found = []
    for a in range(1, NUM_WINDOWS + 1):
        law = truncation.replay([1] * (NUM_WINDOWS - 1) + [a])
        estimator = artbp.unbiased_tbptt(
            problem.cell, problem.loss_fn, law, truncation_length=LENGTH
        )
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
        for _ in range(NUM_WINDOWS):
            grads, state, _ = estimator.estimate(problem.params, state, problem.stream)
        found.append(ravel_pytree(grads)[0])
    return np.asarray(found)


@pytest.mark.parametrize("name", ["linear", "lstm"])
def test_the_variance_is_that_of_all_look_backs(name, float64):
    problem = make_problem(name, LENGTH * NUM_WINDOWS)
    law = truncation.polynomial(1.7, 4)
    through = np.diff(look_back_gradients(problem), axis=0, prepend=0)  # G_0, …, G_3
    survival = law.survival(np.arange(NUM_WINDOWS))
    estimates = np.cumsum(through / survival[:, None], axis=0)  # of a look-back of 1, …, 4 windows
    chance = np.append(-np.diff(survival), survival[-1])
    mean = chance @ estimates
    np.testing.assert_allclose(mean, through.sum(axis=0), rtol=1e-12)
    variance = chance @ np.sum((estimates - mean) ** 2, axis=1)
    remainders = np.cumsum(through[::-1], axis=0)[::-1][1:]  # R_1, R_2, R_3
    profile = np.sum(remainders**2, axis=1)
    np.testing.assert_allclose(truncation.look_back_variance(law, profile), variance, rtol=1e-10)
    # The control: the profile one window off.
    assert abs(truncation.look_back_variance(law, profile[1:]) / variance - 1) > 0.01
    # What the diagnostic measures is this profile.
    measured = artbp.diagnostics.look_back_profile(
        problem.cell,
        problem.loss_fn,
        problem.params,
        problem.carry,
        problem.stream,
        truncation_length=LENGTH,
        num_windows=NUM_WINDOWS - 1,
        num_samples=1,
    )
    np.testing.assert_allclose(measured.remainders, profile, rtol=1e-10)
    np.testing.assert_allclose(measured.gradient, np.sum(mean**2), rtol=1e-10)


def brute_force(weights, work):
    """Minimises Σ w/S by a general method, over the falls of S, which are not negative."""
    n = len(weights)
    falls = np.tri(n).T  # S = falls @ x
    best = np.inf
    for start in (np.eye(n)[-1] * work / n, np.full(n, work / (n * (n + 1) / 2))):
        found = optimize.minimize(
            lambda x: np.sum(weights / (falls @ x)),
            start,
            jac=lambda x: -falls.T @ (weights / (falls @ x) ** 2),
            bounds=[(0, 1)] * (n - 1) + [(1e-6, 1)],
            constraints=[
                {"type": "eq", "fun": lambda x: np.sum(falls @ x) - work},
                {"type": "ineq", "fun": lambda x: 1 - np.sum(x)},
            ],
            method="SLSQP",
            options={"maxiter": 2000, "ftol": 1e-15},
        )
        survival = falls @ np.maximum(found.x, 0)
        if abs(np.sum(survival) / work - 1) < 1e-4:
            survival *= work / np.sum(survival)
        if abs(np.sum(survival) - work) < 1e-9 and survival[0] < 1 + 1e-9:
            best = min(best, np.sum(weights / survival))
    assert np.isfinite(best)
    return best


@pytest.mark.parametrize(("seed", "work"), itertools.product(range(5), (0.3, 1.2, 3.0)))
def test_the_best_survival_against_a_general_minimiser(seed, work):
    """Weights that rise in places, some negative, as those of gradients that cancel."""
    rng = np.random.default_rng(seed)
    profile = np.exp(-0.5 * np.arange(7)) * rng.uniform(0.6, 1.6, 7)
    weights = profile - np.append(profile[1:], 0)
    assert np.any(np.diff(weights) > 0)
    survival = best_survival(weights, work)
    assert np.all(np.diff(np.append(1.0, survival)) <= 1e-12)
    np.testing.assert_allclose(survival.sum(), work, rtol=1e-12)
    value = np.sum(weights / survival)
    np.testing.assert_allclose(value, brute_force(weights, work), rtol=1e-6)
    # The control: a law of the same work that is not the best.
    assert value < np.sum(weights / np.full(7, work / 7)) * 0.99


@pytest.mark.parametrize(("rho", "work"), [(0.5, 0.4), (0.9, 2.0)])
def test_a_geometric_profile_has_a_geometric_law(rho, work):
    profile = rho ** (2 * np.arange(1, 30))
    law = truncation.optimal_look_back(profile, extra_work=work)
    ages = np.arange(1, 60)
    survival = law.survival(ages)
    np.testing.assert_allclose(survival, work * (1 - rho) / rho * rho**ages, rtol=1e-6)
    np.testing.assert_allclose(truncation.look_back_work(law), work, rtol=1e-6)
    assert law.hazard(10_000) > 0  # it reaches every window
    geometric = truncation.geometric(1 + work)  # of the same work
    mine, other = (truncation.look_back_variance(x, profile) for x in (law, geometric))
    assert mine < other


def test_work_for_all_windows_is_spent_on_the_first():
    """Where the weights are at the cap, the look-back is certain that far."""
    law = truncation.optimal_look_back([9.0, 8.0, 0.1, 0.01, 0.001], extra_work=2.3)
    survival = law.survival(np.arange(1, 6))
    np.testing.assert_allclose(survival[:2], 1, rtol=1e-12)
    assert np.all(survival[2:] < 0.5)


def test_a_law_that_cannot_reach_a_window_has_infinite_variance():
    assert truncation.look_back_variance(truncation.fixed(2), [1.0, 0.5]) == np.inf
    assert truncation.look_back_variance(truncation.fixed(2), [1.0, 0.0]) == 0
    np.testing.assert_allclose(truncation.look_back_work(truncation.geometric(4 / 3)), 1 / 3)


@pytest.mark.filterwarnings("ignore:alpha=2.1")
def test_the_work_of_every_law():
    """W = E[A] − 1, also where the sum over windows converges slowly or not at all."""
    for law, work in (
        (truncation.polynomial(1.5, 4), 0.5),
        (truncation.polynomial(3, 2.1), 2),  # half of the sum lies beyond 10,000 windows
        (truncation.fixed(3), 2),
        (truncation.tabulated([0.5, 0.5, 0.25]), 0.5 + 0.25 / 0.25),
        (truncation.never(), np.inf),
        (truncation.tabulated([0.5, 0.0]), np.inf),
    ):
        np.testing.assert_allclose(truncation.look_back_work(law), work, rtol=1e-6)


@pytest.mark.parametrize(
    ("profile", "work"),
    [
        *[([1.0], 1), ([1.0, 2.0], 1), ([1.0, 0.0], 1), ([[1.0]], 1), ([2, 1.0], 0)],
        # Negligible from the eighth window on: the law would look back 1005 windows for 6.999.
        *[([2, np.nan], 1), ([1.0, 0.01], 20), ([1.0, 0.01], 6.999)],
    ],
)
def test_bad_profiles_are_refused(profile, work):
    with pytest.raises(ValueError, match=r"profile|extra_work"):
        truncation.optimal_look_back(profile, extra_work=work)


def test_a_stream_that_is_too_short():
    problem = make_problem("rnn", 5)
    with pytest.raises(ValueError, match="The stream has 2 windows"):
        artbp.diagnostics.look_back_profile(
            problem.cell,
            problem.loss_fn,
            problem.params,
            problem.carry,
            problem.stream,
            truncation_length=2,
            num_windows=2,
        )


def test_a_profile_of_the_steps_to_run():
    """History and padding of a stream from a loader change nothing."""
    problem = make_problem("rnn", 12, resets=True, mask=True)
    stream = problem.stream
    fields = (stream.xs, stream.targets, stream.resets, stream.mask)
    longer = [np.concatenate([leaf[5:9], leaf, leaf[:3]]) for leaf in fields]
    chunk = artbp.Stream(*longer, history=4, stop=np.int32(16), ends=False)
    found = [
        artbp.diagnostics.look_back_profile(
            *problem[:4], given, truncation_length=2, num_windows=2, num_samples=2
        )
        for given in (stream, chunk)
    ]
    np.testing.assert_array_equal(found[1].remainders, found[0].remainders)
