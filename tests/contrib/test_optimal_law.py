"""The streaming variance equals closed forms, and the optimal law minimises it."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import artbp
from artbp import truncation
from artbp.contrib import optimal_law
from artbp.contrib.law_objective import LawObjective, hazards_of
from artbp.diagnostics import truncation_covariance
from artbp.truncation import polynomial, streaming_variance, tabulated


def exponential_gram(rate, num_lags, *, coherent=True):
    """Makes the Gram of G_m = rate^m, parallel or orthogonal; the last lag is zero."""
    parts = np.append(rate ** np.arange(num_lags), 0.0)
    return np.outer(parts, parts) if coherent else np.diag(parts**2)


def linear_trace(law, num_steps, rate):
    """Computes the exact trace of s' = rate·s + θ, ℓ = s, which lacks losses after the end.

    b_u = rate·(1 − rate^(T−u))/(1 − rate) and G_{u,m} = b_u · rate^m: far from the end, and by
    symmetry of the difference of two T, a Gram of rate^(m+m') · (rate/(1 − rate))².
    """
    covariance = truncation_covariance(
        lambda theta, carry, x: (rate * carry + theta, rate * carry + theta),
        lambda theta, y, target: y,
        law,
        jnp.array(0.3),
        jnp.array(1.0),
        artbp.Stream(None, num_steps=num_steps),
    )
    return covariance[0, 0]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("law", "tolerance"),
    # Renewals are stationary from the second step on under the geometric law; under the
    # polynomial one the deviation shrinks like T^−(α−2).
    [
        (truncation.geometric(4), 1e-9),
        (polynomial(3, 9), 1e-4),
        (tabulated([0.5, 0.1, 0.2]), 1e-9),
    ],
    ids=["geometric", "polynomial", "tabulated"],
)
def test_the_exact_trace_grows_by_the_streaming_variance_per_step(law, tolerance):
    rate, first, second = 0.7, 80, 120
    slope = linear_trace(law, second, rate) - linear_trace(law, first, rate)
    gram = (rate / (1 - rate)) ** 2 * exponential_gram(rate, 120)
    assert streaming_variance(law, gram) == pytest.approx(slope / (second - first), rel=tolerance)
    other = streaming_variance(truncation.geometric(4.2), gram)
    assert other != pytest.approx(slope / (second - first), rel=0.01)


def test_one_lag_by_hand():
    """G_1 alone: V = (1/L0) Σ_{k≥2} (1/S(k) − 1/S(k−1)) S(k−2)² g², geometric in closed form.

    With S(k) = ρ^k: Σ_{k≥2} (1 − ρ)·ρ^{−k}·ρ^{2k−4} = ρ^{−2}, so V = g² ρ^{−2}/L0.
    """
    gram = np.diag([0.0, 2.0, 0.0])
    for mean in (1.5, 4.0, 50.0):
        expected = 2 * (1 - 1 / mean) ** -2 / mean
        assert streaming_variance(truncation.geometric(mean), gram) == pytest.approx(expected)
    # For a polynomial law the sum is written out.
    law, k = polynomial(16, 4), np.arange(2, 400_000)
    before, here, after = (law.survival(k + shift) for shift in (-2, -1, 0))
    expected = np.sum((1 / after - 1 / here) * before**2) * 2 / 16
    assert streaming_variance(law, gram) == pytest.approx(expected, rel=1e-7)


def test_diverging_sums_are_refused():
    slow = exponential_gram(0.99, 64)[:-1, :-1]  # falls more slowly than ρ² = 1 − 1/16
    with pytest.raises(ValueError, match="diverges at the 64 lags"):
        streaming_variance(truncation.geometric(16), slow)
    with pytest.raises(ValueError, match="lacks about"):
        streaming_variance(truncation.geometric(16), exponential_gram(0.94, 40)[:-1, :-1])
    # A zero lag at the end states that later lags are zero.
    assert streaming_variance(truncation.geometric(16), exponential_gram(0.99, 64)) > 0
    assert streaming_variance(truncation.geometric(16), exponential_gram(0.9, 64)[:-1, :-1]) > 0
    with pytest.raises(ValueError, match=r"c\(5\) = 1"):
        streaming_variance(truncation.fixed(5), slow)
    with pytest.raises(ValueError, match="mean length"):
        streaming_variance(truncation.never(), slow)
    with pytest.raises(ValueError, match="not symmetric"):
        streaming_variance(polynomial(4, 4), [[1.0, 2.0], [0.0, 1.0]])


def moments(law, longest=20_000):
    survival, k = law.survival(np.arange(longest)), np.arange(longest)
    return survival.sum(), ((2 * k + 1) * survival).sum()


def test_the_optimum_against_brute_force():
    """Three hazards under two constraints have one degree of freedom, which a grid covers."""
    gram = exponential_gram(0.8, 3)
    mean, second = 2.5, 9.0
    best = optimal_law(gram, mean_length=mean, second_moment=second, num_ages=3)
    found = moments(best)
    assert found[0] == pytest.approx(mean, rel=1e-6)
    assert found[1] <= second * (1 + 1e-6)
    least = np.inf
    for first, last in itertools.product(np.arange(0.01, 1, 0.01), np.arange(0.02, 1, 0.01)):
        # mean = 1 + s1 + s1·s2/c3, with s2 solved for
        middle = (mean / (1 - first) - 1 / (1 - first) - 1) * last
        if not 0 < middle <= 1:
            continue
        law = tabulated([first, 1 - middle, last])
        if moments(law, 1000)[1] <= second:
            least = min(least, streaming_variance(law, gram))
    value = streaming_variance(best, gram)
    assert value <= least * (1 + 1e-9)
    assert least < 1.01 * value  # the grid comes close


@pytest.mark.parametrize("coherent", [True, False], ids=["coherent", "orthogonal"])
def test_the_optimum_beats_its_neighbours_and_the_usual_laws(coherent):
    mean, alpha = 6.0, 5.0
    second = mean + 2 * mean * (mean - 1) * (alpha - 2) / (alpha - 3)  # that of polynomial(6, 5)
    assert moments(polynomial(mean, alpha), 400_000)[1] == pytest.approx(second, rel=1e-3)
    gram = exponential_gram(0.85, 24, coherent=coherent)
    best = optimal_law(gram, mean_length=mean, second_moment=second)
    value, found = streaming_variance(best, gram), moments(best)
    assert found[0] == pytest.approx(mean, rel=1e-6)
    assert found[1] == pytest.approx(second, rel=1e-6)  # here the bound is reached
    assert value < 0.95 * streaming_variance(polynomial(mean, alpha), gram)
    # At the geometric law's second moment the optimum beats the geometric law too.
    geometric = truncation.geometric(mean)
    tight = optimal_law(gram, mean_length=mean, second_moment=2 * mean**2 - mean)
    assert streaming_variance(tight, gram) < streaming_variance(geometric, gram)
    # Feasible laws with three moved hazards are worse.
    rng = np.random.default_rng(0)
    worse = 0
    for _ in range(60):
        ages = np.sort(rng.choice(20, 3, replace=False))
        law = _moved(np.array(best.hazards), ages, rng.choice([-1, 1]) * 0.02, mean, second)
        if law is not None:
            assert streaming_variance(law, gram) > value * (1 - 1e-8)
            worse += 1
    assert worse > 20


def test_the_second_moment_is_an_upper_bound():
    """For a short memory the bound is not reached, and a looser bound is no worse."""
    gram, mean = exponential_gram(0.85, 24, coherent=False), 6.0
    tight, loose = (optimal_law(gram, mean_length=mean, second_moment=s) for s in (120.0, 400.0))
    assert moments(tight)[1] == pytest.approx(120.0, rel=1e-6)
    assert moments(loose)[1] < 250
    assert streaming_variance(loose, gram) < streaming_variance(tight, gram)
    # This holds for a very loose bound.
    far = optimal_law(gram, mean_length=mean, second_moment=1e6)
    assert streaming_variance(far, gram) == pytest.approx(streaming_variance(loose, gram), rel=1e-6)
    # Here steps reach the bound from within and must not exceed it.
    parts = np.random.default_rng(1).normal(size=(16, 3)) * 0.85 ** np.arange(16)[:, None]
    held = optimal_law(parts @ parts.T, mean_length=mean, second_moment=126.0)
    assert moments(held) == pytest.approx((mean, 126.0), rel=1e-6)


def _moved(hazards, ages, step, mean, second):
    """Moves the first of three hazards, and the others so that both moments stay equal."""
    hazards = hazards.copy()
    hazards[ages[0]] += step
    for _ in range(20):
        if hazards.min() < 0 or hazards.max() >= 1:
            return None
        excess = np.subtract(moments(tabulated(hazards), 2000), (mean, second))
        if np.all(np.abs(excess) < 1e-9 * second):
            return tabulated(hazards)
        slopes = []
        for age in ages[1:]:
            nearby = hazards.copy()
            nearby[age] += 1e-7
            slopes.append(
                np.subtract(moments(tabulated(nearby), 2000), (mean, second)) / 1e-7 - excess / 1e-7
            )
        hazards[ages[1:]] -= np.linalg.solve(np.array(slopes).T, excess)
    return None


def test_the_derivatives_that_the_search_uses():
    """Gradients and Hessians of variance and moments equal central differences."""
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(4, 6))
    objective = LawObjective(parts @ parts.T, 4.0, 40.0, 6)
    logits = rng.normal(size=6) / 2 - 1.2
    law = tabulated(hazards_of(logits))
    mean, second = moments(law)
    expected = mean * streaming_variance(law, objective.gram)
    assert objective.variance(logits) == pytest.approx(expected)
    assert objective.excess(logits) == pytest.approx([mean / 4 - 1, second / 40 - 1])
    jets = (
        objective.variance_jet,
        lambda x: objective.constraints(x)[0],
        lambda x: objective.constraints(x)[1],
    )
    for jet in jets:

        def gradient(x, jet=jet):
            return jet(x).gradient @ objective.jacobian(x)

        numeric = _differences(lambda x, jet=jet: jet(x).value, logits)
        np.testing.assert_allclose(gradient(logits), numeric, rtol=1e-6)
        hessian = objective.hessian(jet(logits), logits)
        scale = np.abs(hessian).max()
        np.testing.assert_allclose(
            hessian / scale, _differences(gradient, logits) / scale, atol=1e-8
        )


def _differences(function, point, step=1e-5):
    moves = step * np.eye(len(point))
    return np.array([(function(point + m) - function(point - m)) / (2 * step) for m in moves])


def test_moments_that_no_law_has():
    gram = exponential_gram(0.8, 3)
    with pytest.raises(ValueError, match=r"above 16.* geometric"):
        optimal_law(gram, mean_length=4, second_moment=16)
    with pytest.raises(ValueError, match="mean_length"):
        optimal_law(gram, mean_length=1, second_moment=16)
    with pytest.raises(ValueError, match="num_ages"):
        optimal_law(gram, mean_length=4, second_moment=30, num_ages=1)
