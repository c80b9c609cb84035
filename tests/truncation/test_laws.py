"""The laws: hazards by hand, exact means, and draws that follow them."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artbp import truncation

RANDOM_LAWS = {
    "polynomial 16, 4": truncation.polynomial(16, 4),
    "polynomial 50, 6": truncation.polynomial(50, 6),
    "polynomial 3, 3.5": truncation.polynomial(3, 3.5),
    "geometric 16": truncation.geometric(16),
}
random_laws = pytest.mark.parametrize("law", RANDOM_LAWS.values(), ids=RANDOM_LAWS)


def test_the_paper_hazard_by_hand():
    """(α − 1)/((α − 2)·L0 + k) at L0 = 16, α = 4: 3/33, 3/34, 3/35."""
    hazard = truncation.polynomial(16, 4).hazard(np.arange(1, 4))
    np.testing.assert_allclose(hazard, [3 / 33, 3 / 34, 3 / 35], rtol=1e-15)
    assert hazard.dtype == np.float64


@given(mean=st.floats(1.05, 300), alpha=st.floats(3.5, 12))
def test_the_mean_of_the_polynomial_law_is_exact(mean, alpha):
    """E[length] = Σ_{k ≥ 0} S(k) = L0: summed to K, with the rest in closed form.

    From S(k)·w ∝ Γ-ratio, Σ_{k ≥ K} S(k) = S(K)·((α − 2)·L0 + K)/(α − 2), exactly.
    """
    law = truncation.polynomial(mean, alpha)
    survival = law.survival(np.arange(0, 2001))
    rest = survival[-1] * ((alpha - 2) * mean + 2000) / (alpha - 2)
    np.testing.assert_allclose(survival[:-1].sum() + rest, mean, rtol=1e-11)


@pytest.mark.parametrize("mean", [1.5, 16, 50])
def test_the_mean_of_the_geometric_law(mean):
    survival = truncation.geometric(mean).survival(np.arange(0, 5000))
    np.testing.assert_allclose(survival.sum(), mean, rtol=1e-12)


@random_laws
def test_compensations_undo_the_survival(law):
    k = np.arange(1, 5001)
    product = np.cumsum(np.log(law.compensation(k)))
    np.testing.assert_allclose(product + np.log(law.survival(k)), 0, atol=1e-10)
    # The control: one step off is seen.
    assert abs(product[99] + np.log(law.survival(k + 1))[99]) > 1e-3


@pytest.mark.parametrize("excess", [1e-2, 1e-4, 1e-6, 1e-9])
def test_compensations_of_hazards_close_to_one_in_float32(excess):
    """By exact fractions of the float64 mean length; `unbiased_tbptt` has means close to 1."""
    mean, ages = 1 + excess, jnp.arange(1, 4)
    exact = 1 / (Fraction(mean) - 1)
    hazards = (0.5, 1 - excess)
    polynomial = [
        (2 * (exact + 1) + (k - 1) * exact + exact) / (2 + (k - 1) * exact) for k in (1, 2)
    ]
    with jax.enable_x64(False):
        found = truncation.polynomial(mean, 4).compensation(ages)
        np.testing.assert_allclose(found[:2], [float(value) for value in polynomial], rtol=1e-6)
        found = truncation.geometric(mean).compensation(ages)
        np.testing.assert_allclose(found, float(1 + exact), rtol=1e-6)
        found = truncation.tabulated(hazards).compensation(ages)
        last = float(1 / (1 - Fraction(hazards[1])))
        np.testing.assert_allclose(found, [2, last, last], rtol=1e-6)


def test_survival_at_a_large_mean_against_gamma_functions():
    """L0 = 5000, where float32 log-gammas are 2 % off."""
    from scipy.special import gammaln

    law, k = truncation.polynomial(5000, 4), np.array([1, 100, 5000, 100_000])
    z, p = 2 * 5000 + 1, 3
    exact = np.exp(gammaln(z + k - p) - gammaln(z - p) + gammaln(z) - gammaln(z + k))
    np.testing.assert_allclose(law.survival(k), exact, rtol=1e-9)


@random_laws
def test_drawn_lengths_follow_the_law(law):
    """A χ² test over 20 bins of equal probability, 200,000 draws, fixed key.

    False alarm rate 1e-4 per law. The control: draws from a law of 5 % larger mean are rejected.
    """
    from scipy.stats import chisquare

    keys = jax.random.split(jax.random.key(11), 200_000)
    lengths = np.asarray(jax.jit(jax.vmap(law.sample_length))(keys))
    assert lengths.min() >= 1

    def p_value(reference):
        survival = reference.survival(np.arange(0, 200_000))
        edges = np.unique(np.searchsorted(-survival, -np.linspace(1, 0.001, 21)))
        edges = np.concatenate([edges, [survival.size]])
        expected = -np.diff(np.concatenate([survival[edges[:-1]], [0.0]]))
        observed = np.histogram(lengths - 1, np.concatenate([edges[:-1], [np.inf]]))[0]
        return chisquare(observed, expected / expected.sum() * observed.sum()).pvalue

    assert p_value(law) > 1e-4
    other = type(law)(law.mean_length * 1.05, *((law.alpha,) if hasattr(law, "alpha") else ()))
    assert p_value(other) < 1e-4


def test_the_far_tail_has_the_right_probability():
    """The draws behind the table, given their uniform: length > k exactly where u ≤ S(k)."""
    law = truncation.polynomial(16, 4)
    k = np.array([1, 15, 4000, 4095, 4096, 4097, 5000, 20_000, 100_000])
    for survival, age in zip(law.survival(k), k, strict=True):
        for factor, longer in ((1 - 2e-6, True), (1 + 2e-6, False)):
            length = int(law.length_at(jnp.float32(survival * factor)))
            assert (length > age) == longer, (age, length, factor)


def test_uniforms_reach_far_below_float32_spacing():
    from artbp.truncation.base import full_precision_uniform

    draws = np.asarray(
        jax.jit(jax.vmap(full_precision_uniform))(jax.random.split(jax.random.key(0), 200_000))
    )
    assert draws.max() <= 1
    assert 0 < draws.min() < 1e-4
    low = draws[draws < 1e-3]
    assert len(np.unique(low)) == len(low)  # a grid of 2^−23 would make some of them equal
    # Kolmogorov's statistic: 1.95/√n is exceeded once in a thousand.
    ranks = np.arange(1, draws.size + 1) / draws.size
    assert np.abs(np.sort(draws) - ranks).max() < 1.95 / np.sqrt(draws.size)


@pytest.mark.parametrize("law", [truncation.polynomial(5, 4), truncation.geometric(5)])
def test_gates_have_mean_one(law):
    """E[gate_t | past] = 1, so E[gate_t] = 1 at every step: 40,000 keys, five standard errors."""
    keys = jax.random.split(jax.random.key(2), 40_000)
    gates = np.asarray(jax.jit(jax.vmap(lambda key: law.sample_gates(key, 12)))(keys))
    errors = 5 * gates.std(axis=0) / np.sqrt(len(gates))
    assert (np.abs(gates.mean(axis=0) - 1) < errors).all()
    assert ((gates > 0).mean(axis=0) < 0.95).all()  # the control: uncompensated gates are not 1


def test_fixed_and_never():
    fixed = truncation.fixed(3)
    np.testing.assert_array_equal(fixed.hazard(np.arange(1, 5)), [0, 0, 1, 1])
    np.testing.assert_array_equal(fixed.compensation(np.arange(1, 5)), [1, 1, 0, 0])
    np.testing.assert_array_equal(fixed.survival(np.arange(0, 5)), [1, 1, 1, 0, 0])
    gates = fixed.sample_gates(jax.random.key(0), 7)
    np.testing.assert_array_equal(gates, [1, 1, 0, 1, 1, 0, 1])
    assert truncation.never().sample_length(jax.random.key(0)) == 2**31 - 1
    assert truncation.never().sample_length(jax.random.key(0), 12) == 12
    np.testing.assert_array_equal(truncation.never().compensation(np.arange(1, 4)), [1, 1, 1])


def test_replay_cycles_through_its_lengths():
    law = truncation.replay([2, 1, 3])
    drawn = [int(law.length_of(jax.random.key(0), i)) for i in range(5)]
    assert drawn == [2, 1, 3, 2, 1]
    gates = law.sample_gates(jax.random.key(0), 8)
    np.testing.assert_array_equal(gates, [1, 0, 0, 1, 1, 0, 1, 0])
    compensated = truncation.replay([3], truncation.geometric(2)).sample_gates(jax.random.key(0), 3)
    np.testing.assert_array_equal(compensated, [2, 2, 0])


def test_lengths_are_clamped_to_the_limit():
    lengths = jax.vmap(lambda key: truncation.polynomial(50, 4).sample_length(key, 7))(
        jax.random.split(jax.random.key(0), 50)
    )
    assert lengths.dtype == jnp.int32
    assert lengths.max() == 7


def test_a_law_is_a_value():
    assert truncation.polynomial(16, 4) == truncation.polynomial(16.0, 4.0)
    assert hash(truncation.geometric(3)) == hash(truncation.geometric(3))
    with pytest.raises(AttributeError):
        truncation.geometric(3).mean_length = 4


@pytest.mark.parametrize("mean", [1, 0.5, -3, np.nan, np.inf])
def test_mean_lengths_that_are_refused(mean):
    for build in (truncation.geometric, lambda mean: truncation.polynomial(mean, 4)):
        with pytest.raises(ValueError, match="mean_length"):
            build(mean)


@pytest.mark.parametrize("alpha", [2, 1.5, 0, np.nan])
def test_alphas_that_are_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        truncation.polynomial(16, alpha)


@pytest.mark.parametrize("alpha", [2.5, 3])
def test_alphas_of_infinite_variance_warn(alpha):
    with pytest.warns(UserWarning, match="infinite variance"):
        truncation.polynomial(16, alpha)


def test_other_arguments_that_are_refused():
    for bad in (0, -1, 2.5, 2**31):
        with pytest.raises(ValueError, match="length"):
            truncation.fixed(bad)
    for bad in ([], [0, 1], [1.5], [[1]], [2**31]):
        with pytest.raises(ValueError, match="lengths"):
            truncation.replay(bad)
    with pytest.raises(ValueError, match="length"):
        truncation.Fixed(0)
    with pytest.raises(ValueError, match="hazards"):
        truncation.Tabulated((2.0,))
    with pytest.raises(ValueError, match="lengths"):
        truncation.Replay([0])
    with pytest.raises(ValueError, match="k = 1"):
        truncation.geometric(3).hazard(0)
    with pytest.raises(ValueError, match="ages"):
        truncation.geometric(3).survival(-1)
    with pytest.raises(ValueError, match="whole ages"):
        truncation.geometric(3).survival(1.5)
    assert truncation.geometric(3).survival(2.0) == truncation.geometric(3).survival(2)


def test_a_tabulated_law_by_hand():
    """Survivals are products of 1 − c, and the last hazard goes on for ever."""
    law = truncation.tabulated([0.5, 0.2, 0.25])
    np.testing.assert_allclose(law.hazard(np.arange(1, 6)), [0.5, 0.2, 0.25, 0.25, 0.25])
    np.testing.assert_allclose(law.survival(np.arange(1, 5)), [0.5, 0.4, 0.3, 0.225])
    np.testing.assert_allclose(law.compensation(jnp.arange(1, 4)), [2, 1.25, 4 / 3], rtol=1e-6)


class HazardOnly(truncation.TruncationLaw):
    """A law of a user's own, who states the hazard of another law and nothing else."""

    def __init__(self, law):
        self.hazard_of = law.hazard

    def hazard(self, k):
        return self.hazard_of(k)


def test_a_hazard_of_another_shape_than_the_ages_is_refused():
    class Constant(truncation.TruncationLaw):
        def hazard(self, k):
            return 0.1

    for measure in (Constant().survival, Constant().compensation):
        with pytest.raises(ValueError, match=r"Constant.hazard\(k\) has shape \(\) for ages k"):
            measure(np.arange(1, 4))
    assert Constant().compensation(3) == pytest.approx(1 / 0.9)


EVERY_LAW = {
    "polynomial": truncation.polynomial(3, 4),
    "geometric": truncation.geometric(3),
    "one": truncation.tabulated([0.3]),
    "tail": truncation.tabulated([0.0, 0.5, 0.1]),
    "cap": truncation.tabulated([0.2, 0.2, 1.0]),
    "fixed": truncation.fixed(3),
    "hazard only, polynomial": HazardOnly(truncation.polynomial(3, 4)),
    "hazard only, tail": HazardOnly(truncation.tabulated([0.0, 0.5, 0.1])),
    "hazard only, cap": HazardOnly(truncation.tabulated([0.2, 0.2, 1.0])),
    "hazard only, fixed": HazardOnly(truncation.fixed(3)),
}


def test_every_law_of_the_package_is_held_to_its_hazard():
    """Each has a row above, or draws nothing (never) or what it is told (replay)."""
    named = {type(law) for law in EVERY_LAW.values()}
    kinds = {kind for kind in vars(truncation).values() if isinstance(kind, type)}
    abstract = {truncation.TruncationLaw, truncation.InvertibleLaw}
    assert kinds - abstract - named == {truncation.Never, truncation.Replay}


@pytest.mark.optimised  # it spends more time on computing than on compiling
@pytest.mark.parametrize("law", EVERY_LAW.values(), ids=EVERY_LAW)
def test_lengths_follow_the_hazard(law):
    """Frequencies of the lengths 1, …, 8 in 100,000 draws, each within five standard errors."""
    keys = jax.random.split(jax.random.key(5), 100_000)
    lengths = np.asarray(jax.jit(jax.vmap(law.sample_length))(keys))
    survival = law.survival(np.arange(0, 9))
    probability = survival[:-1] - survival[1:]
    found = np.array([(lengths == k).mean() for k in range(1, 9)])
    error = np.sqrt(probability * (1 - probability) / lengths.size)
    assert np.all(np.abs(found - probability) <= 5 * error)
    # The control: the frequencies of neighbouring lengths are told apart.
    assert np.any(np.abs(np.roll(found, 1) - probability) > 5 * error)


def test_a_law_of_hazards_alone_stops_at_the_limit():
    """Its hazards end at 0, so without the limit it would draw for ever."""
    law = HazardOnly(truncation.tabulated([0.5, 0.0]))
    keys = jax.random.split(jax.random.key(5), 100)
    lengths = jax.vmap(lambda key: law.sample_length(key, 7))(keys)
    assert set(np.unique(lengths)) == {1, 7}


def test_a_tabulated_law_that_ends_in_zero_need_not_end():
    law = truncation.tabulated([0.5, 0.0])
    keys = jax.random.split(jax.random.key(5), 100)
    lengths = jax.vmap(law.sample_length)(keys)
    assert set(np.unique(lengths)) == {1, np.iinfo(np.int32).max}
    assert int(law.sample_length(keys[0], 7)) <= 7


def test_a_tabulated_tail_stays_within_its_integers():
    law = truncation.tabulated([0.0] * 200 + [1e-9])
    lengths = jax.vmap(law.sample_length)(jax.random.split(jax.random.key(1), 1000))
    assert int(lengths.min()) > 0


@pytest.mark.parametrize("hazards", [[], [1.0, 0.5], [-0.1], [float("nan")]])
def test_bad_tables(hazards):
    with pytest.raises(ValueError, match="hazard"):
        truncation.tabulated(hazards)


@pytest.mark.parametrize("mean_length, alpha", [(5000, 1e5), (5000, 1e7), (5000, 1e9), (2000, 1e7)])
def test_a_polynomial_law_that_is_nearly_geometric_has_its_lengths(mean_length, alpha):
    """In float32 the power of the uniform is 1 up to rounding; its difference from 1 counts."""
    u = (np.arange(200_000) + 0.5) / 200_000
    law = truncation.polynomial(mean_length, alpha)
    lengths = np.asarray(law.length_at(jnp.asarray(u, jnp.float32)), float)
    assert lengths.mean() == pytest.approx(mean_length, rel=1e-3)
    assert np.mean(lengths > mean_length) == pytest.approx(np.exp(-1), rel=1e-2)
    assert len(np.unique(lengths[lengths > 4096])) > 5_000


def test_fixed_compares_ages_as_integers():
    """float32 does not hold 2²⁴ + 1."""
    law = truncation.fixed(2**24 + 1)
    ages = np.array([2**24, 2**24 + 1])
    np.testing.assert_array_equal(law.compensation(ages), [1, 0])
    np.testing.assert_array_equal(law.compensation(jnp.asarray(ages)), [1, 0])
