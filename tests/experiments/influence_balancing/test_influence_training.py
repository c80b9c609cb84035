"""The batched program against slow, obvious loops, row by row."""

import functools
import itertools

import influence_twin
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import artbp
from experiments.common.arms import parse
from experiments.influence_balancing import system, training

pytestmark = pytest.mark.usefixtures("float64")

NUM_STEPS = 700


def train(name, rng_keys, eta_0, schedules, *, num_steps=NUM_STEPS, stream=None):
    """Rows are ordered (schedule, rate, key)."""
    return training.train(
        parse(name),
        training.make_rows(rng_keys, eta_0, schedules),
        stream or artbp.Stream(None, num_steps=num_steps),
        theta_0=0.5,
        edges=training.log_bins(num_steps, 50),
    )


@functools.cache
def unbatched_estimator(name):
    estimator = parse(name).build(system.cell, system.loss_fn, block_size=32)
    return estimator._replace(estimate=jax.jit(estimator.estimate))


def python_loop(name, rng_key, eta_0, *, xs=None, mask=None):
    """The loop in the docstring of `training`, with the estimator unbatched."""
    estimator = unbatched_estimator(name)
    stream = artbp.Stream(xs, mask=mask, num_steps=NUM_STEPS)
    params = {"theta": jnp.float64(0.5)}
    state = estimator.init(params, system.initial_carry(), rng_key=rng_key)
    step, thetas, loss_sum = 0, [], 0.0
    while step < NUM_STEPS:
        grads, state, info = estimator.estimate(params, state, stream)
        step += int(info.length)
        params = {"theta": params["theta"] - eta_0 / np.sqrt(1.0 + step) * grads["theta"]}
        thetas.append(float(params["theta"]))
        loss_sum += float(info.loss_sum)
    return thetas, loss_sum


def drawn_lengths(law, rng_key):
    for segment in itertools.count():
        yield int(law.length_of(rng_key, segment))


@pytest.fixture(scope="module")
def rng_keys():
    return jax.random.split(jax.random.key(3), 4)


def test_rows_equal_a_python_loop(rng_keys):
    name = "artbp(16, alpha=4)"
    history = train(name, rng_keys, (1e-3, 3e-3), ("time steps",))
    assert history.loss.shape == (8, len(training.log_bins(NUM_STEPS, 50)) - 1)
    for row in (0, 3, 6):
        eta_0, key = (1e-3, 3e-3)[row // 4], rng_keys[row % 4]
        thetas, loss_sum = python_loop(name, key, eta_0)
        assert history.final_theta[row] == pytest.approx(thetas[-1], rel=1e-10)
        assert history.num_segments[row] == len(thetas)
        widths = np.diff(training.log_bins(NUM_STEPS, 50))
        assert history.loss[row] @ widths == pytest.approx(loss_sum, rel=1e-10)


def test_noisy_drives_and_masks_equal_a_python_loop(rng_keys):
    name = "artbp(16, law='geometric')"
    keys = rng_keys[:2]
    xs = 1.0 + jax.random.normal(jax.random.key(8), (2, NUM_STEPS))
    stream = artbp.Stream(xs, num_steps=NUM_STEPS)
    history = train(name, keys, (1e-3,), ("time steps",), stream=stream)
    for row, key in enumerate(keys):
        thetas, _ = python_loop(name, key, 1e-3, xs=xs[row])
        assert history.final_theta[row] == pytest.approx(thetas[-1], rel=1e-10)

    mask = np.arange(1, NUM_STEPS + 1) % 16 == 0
    stream = artbp.Stream(None, mask=mask, num_steps=NUM_STEPS)
    history = train(name, keys, (1e-3,), ("time steps",), stream=stream)
    thetas, _ = python_loop(name, keys[1], 1e-3, mask=mask)
    assert history.final_theta[1] == pytest.approx(thetas[-1], rel=1e-10)


@pytest.mark.parametrize("name", ["artbp(16, alpha=4)", "uncompensated(16, alpha=4)"])
def test_random_boundaries_equal_numpy_with_gradients_by_hand(name, rng_keys):
    arm = parse(name)
    history = train(name, rng_keys[:2], (1e-3,), ("time steps", "updates"))
    for row, (clock, key) in enumerate(itertools.product(("time steps", "updates"), rng_keys[:2])):
        gate = arm.law.compensation if arm.name == "artbp" else lambda age: 1.0
        thetas, _ = influence_twin.train(
            drawn_lengths(arm.law, key), gate, 1e-3, NUM_STEPS, clock=clock
        )
        assert history.final_theta[row] == pytest.approx(thetas[-1], rel=1e-9)


def test_control_cuts_where_artbp_cuts(rng_keys):
    with_compensation = train("artbp(16, alpha=4)", rng_keys, (1e-3,), ("constant",))
    without = train("uncompensated(16, alpha=4)", rng_keys, (1e-3,), ("constant",))
    np.testing.assert_array_equal(with_compensation.num_segments, without.num_segments)
    np.testing.assert_array_equal(with_compensation.longest_segment, without.longest_segment)
    assert np.all(with_compensation.final_theta != without.final_theta)


@pytest.mark.parametrize("clock", ["time steps", "updates", "constant"])
def test_tbptt_equals_numpy_with_gradients_by_hand(clock):
    keys = jax.random.split(jax.random.key(0), 1)
    history = train("tbptt(30)", keys, (1e-4,), (clock,))  # the last segment has 10 steps
    thetas, times = influence_twin.train(
        itertools.repeat(30), lambda age: 1.0, 1e-4, NUM_STEPS, clock=clock
    )
    assert history.final_theta[0] == pytest.approx(thetas[-1], rel=1e-12)
    assert history.largest_theta[0] == pytest.approx(max(0.5, *np.abs(thetas)), rel=1e-12)
    # The θ in force over the last bin: from the update before it.
    edges = training.log_bins(NUM_STEPS, 50)
    in_force = np.concatenate([[0.5], thetas])[np.searchsorted(times, np.arange(1, NUM_STEPS + 1))]
    means = [in_force[a:b].mean() for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(history.theta[0], means, rtol=1e-12)


def test_a_row_that_overflows_leaves_the_others_alone(rng_keys):
    name = "uncompensated(16, alpha=4)"
    together = train(name, rng_keys[:2], (1e-3, 1e3), ("constant",), num_steps=4000)
    alone = train(name, rng_keys[:2], (1e-3,), ("constant",), num_steps=4000)
    assert not np.isfinite(together.final_theta[2:]).any()
    np.testing.assert_array_equal(together.final_theta[:2], alone.final_theta)
    np.testing.assert_array_equal(together.loss[:2], alone.loss)
    # What came before the overflow is still seen.
    assert np.isfinite(together.loss[2:, 0]).all()


def test_bins_hold_every_step_once():
    edges = training.log_bins(1000, 40)
    assert edges[0] == 0
    assert edges[-1] == 1000
    assert np.all(np.diff(edges) > 0)
    np.testing.assert_array_equal(training.log_bins(1, 40), [0, 1])
