"""Adaptive truncation: its formulas for known decays, and the lengths it chooses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import SmallProblem, make_problem, one_pass, relative_error

import artbp
from artbp.estimators.adaptive import bias_bound, fitted_decay_rate

pytestmark = pytest.mark.usefixtures("float64")


def test_the_decay_rate_of_a_geometric_sequence():
    norms = 3.0 * 0.8 ** jnp.arange(1.0, 21.0)
    np.testing.assert_allclose(fitted_decay_rate(norms, 5), 0.8, rtol=1e-12)
    # Lags before `fitted_from` do not matter.
    norms = norms.at[:4].set(100.0)
    np.testing.assert_allclose(fitted_decay_rate(norms, 5), 0.8, rtol=1e-12)
    assert fitted_decay_rate(norms, 4) < 0.79
    # Zero lags, for example before a reset, are left out of the fit.
    np.testing.assert_allclose(fitted_decay_rate(norms.at[12:].set(0.0), 5), 0.8, rtol=1e-12)
    assert fitted_decay_rate(jnp.zeros(20).at[4].set(1.0), 5) == 0


def test_the_bound_is_the_sum_of_what_is_cut_off():
    lags = np.arange(1, 2000)
    true = np.where(lags < 5, 2.0 / lags, 0.7 * 0.8 ** (lags - 5.0))
    lengths = jnp.arange(1, 40, dtype=jnp.int32)
    found = bias_bound(jnp.asarray(true[:20]), jnp.asarray(0.8), 5, lengths)
    cut_off = np.array([true[lags > length].sum() for length in np.asarray(lengths)])
    np.testing.assert_allclose(found, cut_off, rtol=1e-12)
    assert np.all(np.isinf(bias_bound(jnp.asarray(true[:20]), jnp.asarray(1.0), 5, lengths)))


def leaky_problem(decay, num_steps=400):
    """Makes s' = decay · s + θ, ℓ = s', whose gradient at lag k is decay^k."""

    def cell(params, carry, x):
        carry = decay * carry + params["theta"]
        return carry, carry

    return SmallProblem(
        cell,
        lambda params, y, target: y,
        {"theta": jnp.asarray(0.1)},
        jnp.asarray(0.0),
        artbp.Stream(None, num_steps=num_steps),
    )


def chosen(decay, tolerance, **options):
    """Returns `info.extra` and the state after 20 estimates."""
    problem = leaky_problem(decay)
    options = {"first_length": 8, "fitted_from": 4, "measured_lags": 24, "longest": 64, **options}
    estimator = artbp.adaptive_tbptt(problem.cell, problem.loss_fn, tolerance=tolerance, **options)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    for _ in range(20):
        _, state, info = estimator.estimate(problem.params, state, problem.stream)
    return info.extra, state


@pytest.mark.parametrize(("decay", "tolerance"), [(0.5, 0.1), (0.8, 0.1), (0.8, 0.01), (0.9, 0.1)])
def test_the_length_of_theory(decay, tolerance):
    """γ_k = decay^k, so E(K) = decay^(K + 1)/(1 − decay); ‖ĝ‖ is the measured norm."""
    extra, state = chosen(decay, tolerance)
    np.testing.assert_allclose(extra["decay_rate"], decay, rtol=1e-9)
    gradient = abs(state.inner_state.mean_gradient["theta"]) / state.inner_state.gradient_weight
    lengths = np.arange(1, 65)
    bias = decay ** (lengths + 1.0) / (1 - decay)
    expected = 1 + np.argmax((bias / (gradient - bias) < tolerance) & (bias < gradient))
    expected = max(expected, 2)
    assert int(extra["next_truncation_length"]) == expected
    # The measured gradient is close to the true one.
    np.testing.assert_allclose(gradient, 1 / (1 - decay), rtol=0.1)
    assert float(extra["relative_bias"]) < tolerance


def test_longer_memories_and_smaller_tolerances_need_longer_truncation():
    lengths = [
        int(chosen(decay, tolerance)[0]["next_truncation_length"])
        for decay, tolerance in [(0.5, 0.1), (0.8, 0.1), (0.8, 0.01)]
    ]
    assert lengths[0] < lengths[1] < lengths[2]


def test_without_decay_the_longest_length_is_chosen():
    extra, _ = chosen(1.0, 0.1, longest=32)
    assert int(extra["next_truncation_length"]) == 32


def test_sequences_that_are_shorter_than_a_measurement():
    """With a reset every 20 steps longer lags are zero, and the bias sums the remaining lags.

    A fit through zeros would be wrong.
    """
    num_steps = 400
    problem = leaky_problem(0.95, num_steps)
    resets = np.arange(num_steps) % 20 == 0
    problem = problem._replace(stream=artbp.Stream(None, resets=resets, num_steps=num_steps))
    estimator = artbp.adaptive_tbptt(problem.cell, problem.loss_fn, tolerance=0.1, longest=64)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    for _ in range(60):
        _, state, info = estimator.estimate(problem.params, state, problem.stream)
    norms = np.asarray(state.inner_state.lag_norms / state.inner_state.weight)
    assert not norms[20:].any()
    length = int(info.extra["next_truncation_length"])
    gradient = abs(state.inner_state.mean_gradient["theta"]) / state.inner_state.gradient_weight
    cut_off = norms[length:].sum()
    assert cut_off / (gradient - cut_off) < 0.1
    assert length > 7


def test_a_gradient_that_overflows_is_ignored():
    problem = leaky_problem(0.8)
    estimator = artbp.adaptive_tbptt(
        problem.cell, problem.loss_fn, fitted_from=4, measured_lags=24, longest=64
    )
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    for index in range(80):
        here = state
        if index == 10:
            here = state._replace(carry=jnp.asarray(jnp.inf))
        _, state, info = estimator.estimate(problem.params, here, problem.stream)
        if index == 10:  # the user resets the carry; the ring buffer still holds an infinite one
            state = state._replace(carry=problem.carry)
    assert np.isfinite(info.extra["relative_bias"])
    assert int(info.extra["next_truncation_length"]) < 64


def test_what_is_not_finite_enters_no_running_mean():
    """The loss is quadratic, so an infinite carry has an infinite gradient."""
    problem = leaky_problem(0.8)._replace(loss_fn=lambda params, y, target: y**2)
    options = {"first_length": 8, "fitted_from": 2, "measured_lags": 6, "measure_every": 1}
    estimator = artbp.adaptive_tbptt(problem.cell, problem.loss_fn, **options)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    _, state, _ = estimator.estimate(problem.params, state, problem.stream)
    infinite = state._replace(carry=jnp.asarray(jnp.inf))
    grads, after, _ = estimator.estimate(problem.params, infinite, problem.stream)
    assert not np.isfinite(grads["theta"])
    for name in ("mean_gradient", "gradient_weight", "lag_norms", "weight"):
        before = getattr(state.inner_state, name)
        assert np.all(np.isfinite(jax.tree.leaves(before)[0]))
        jax.tree.map(np.testing.assert_array_equal, getattr(after.inner_state, name), before)


def test_a_new_pass_does_not_reset_the_length():
    problem = leaky_problem(0.8, num_steps=60)
    estimator = artbp.adaptive_tbptt(
        problem.cell, problem.loss_fn, first_length=8, fitted_from=4, measured_lags=24
    )
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    ended = False
    while not ended:
        _, state, info = estimator.estimate(problem.params, state, problem.stream)
        ended = info.end_of_stream
    assert int(state.inner_state.truncation_length) != 8
    _, _, info = estimator.estimate(problem.params, state, problem.stream)
    assert int(info.extra["truncation_length"]) == int(state.inner_state.truncation_length)


def test_its_gradient_is_that_of_windows_twice_as_long():
    """Before the first measurement: TBPTT(K, 2K)."""
    problem = make_problem("lstm", 17, resets=True, mask=True)
    adaptive = artbp.adaptive_tbptt(
        problem.cell, problem.loss_fn, first_length=3, shortest=1, longest=6, measured_lags=64
    )
    fixed = artbp.tbptt_k1_k2(problem.cell, problem.loss_fn, k1=3, k2=6)
    states = [
        estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
        for estimator in (adaptive, fixed)
    ]
    for _ in range(7):
        ours, states[0], info = adaptive.estimate(problem.params, states[0], problem.stream)
        theirs, states[1], _ = fixed.estimate(problem.params, states[1], problem.stream)
        assert relative_error(ours, theirs) < 1e-13
        assert np.isinf(info.extra["decay_rate"])


def test_it_runs_under_debug_nans():
    problem = make_problem("rnn", 12)
    with jax.debug_nans(True):
        estimator = artbp.adaptive_tbptt(
            problem.cell, problem.loss_fn, first_length=2, fitted_from=2, measured_lags=5
        )
        _, infos, _ = one_pass(estimator, problem)
    # NaN would stop the run, also where nothing has been measured yet.
    assert np.isinf(infos[0].extra["relative_bias"])
    assert np.isfinite(infos[-1].extra["decay_rate"])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"tolerance": 0.0}, "tolerance=0.0"),
        ({"first_length": 1}, "first_length=1; expected shortest=2"),
        ({"fitted_from": 8, "measured_lags": 9}, "measured_lags=9"),
        ({"longest": 2.5}, "longest=2.5"),
    ],
)
def test_bad_options(options, word):
    problem = make_problem()
    with pytest.raises(ValueError, match=word):
        artbp.adaptive_tbptt(problem.cell, problem.loss_fn, **options)


def test_a_first_measurement_that_is_not_finite_changes_nothing():
    problem = leaky_problem(0.5)
    is_bad = jnp.arange(400) == 15
    stream = artbp.Stream(None, jnp.where(is_bad, jnp.inf, 0.0), num_steps=400)
    estimator = artbp.adaptive_tbptt(
        problem.cell,
        lambda params, y, target: y * (1 + target),
        **{"first_length": 4, "fitted_from": 2, "measured_lags": 6, "longest": 32},
        measure_every=4,
    )
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    found = []
    for _ in range(10):
        _, state, info = estimator.estimate(problem.params, state, stream)
        found.append(int(info.length))
    assert found[:8] == [4] * 8
    assert found[8] < 32
