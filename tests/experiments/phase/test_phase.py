"""The closed forms of the phase map against samples, and a small map with its trainings."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import artbp
from artbp import truncation
from artbp.diagnostics import truncation_covariance
from artbp.truncation import streaming_variance
from experiments.common.arms import parse
from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.common.tuning import Choice
from experiments.phase import budget, prediction, study
from experiments.phase.__main__ import STUDY
from experiments.phase.system import System, cell, initial_carry, loss_fn, make_stream

SYSTEM = System(memory=3.0, later_power=0.5, noise=1.5)
THETA = 0.9
ARMS = ("tbptt(8)", "tbptt(29)", "artbp(8, alpha=4)")
ARMS += ("unbiased_tbptt(21, windows=1.5, alpha=4, mode='reforward')",)
ROOT = pathlib.Path(__file__).parents[3]


def _stream(num_steps, batch, seed=0):
    key = jax.random.key(seed)
    return make_stream(key, SYSTEM.decay, SYSTEM.gain, SYSTEM.noise, num_steps, batch)


def _sample_gradients(length, num_rows=4000):
    """Summed gradients of windows of `length` steps, cut at both ends, in a stationary stream."""
    h, w = SYSTEM.filters()
    rng = np.random.default_rng(1)
    x = rng.standard_normal((num_rows, len(h) + length))
    error = np.zeros((num_rows, length))
    reach = np.zeros((num_rows, length))
    for t in range(length):
        before = x[:, : len(h) + t + 1][:, ::-1][:, : len(h)]
        error[:, t] = before @ (THETA * h - w) - SYSTEM.noise * rng.standard_normal(num_rows)
        reach[:, t] = before[:, : t + 1] @ h[: t + 1]
    return (error * reach).sum(axis=1)


@pytest.mark.parametrize("length", [1, 5, 40])
def test_drift_and_data_noise_of_tbptt_are_those_of_samples(length):
    gradient = prediction.tbptt_gradient(SYSTEM, length)
    samples = _sample_gradients(length)
    error = samples.std() / np.sqrt(len(samples))
    drift = length * gradient.slope * (THETA - gradient.fixed_point)
    assert abs(samples.mean() - drift) < 4 * error  # false alarms below 1e-4
    x = THETA - gradient.fixed_point
    variance = length * gradient.row_noise @ [1, x, x**2]
    # The kurtosis of sums of products is below 9: five standard errors.
    assert abs(samples.var() / variance - 1) < 5 * np.sqrt(8 / len(samples))
    assert gradient.fixed_point == pytest.approx(1) if length == 1 else gradient.fixed_point < 1


def test_windows_without_end_are_the_whole_gradient():
    whole = prediction.artbp_gradient(SYSTEM, truncation.polynomial(8, 4), 8)
    long = prediction.tbptt_gradient(SYSTEM, 1500)
    assert whole.slope == pytest.approx(long.slope, rel=2e-3)
    assert whole.fixed_point == SYSTEM.optimum == pytest.approx(long.fixed_point, abs=1e-3)
    # With boundaries that cut nothing, the noise of ARTBP is that of the data.
    data = prediction._data_noise(SYSTEM, THETA)
    assert data == pytest.approx(prediction._data_noise_of_segments(SYSTEM, THETA, 400), rel=1e-2)


def test_noise_of_the_boundaries_is_the_exact_covariance_of_the_library():
    law, batch, steps = truncation.polynomial(6, 4), 2, 160
    shared, of_rows = prediction.lag_grams(SYSTEM, THETA)
    predicted = streaming_variance(law, shared + of_rows / batch)
    with jax.enable_x64(True):
        params = {"theta": jnp.asarray(THETA)}
        carry = initial_carry(SYSTEM.decay, SYSTEM.gain, batch)

        found = [
            truncation_covariance(
                cell, loss_fn, law, params, carry, _stream(steps, batch, seed)
            ).item()
            / batch**2
            for seed in range(24)
        ]
    mean, error = np.mean(found) / steps, np.std(found, ddof=1) / np.sqrt(len(found)) / steps
    # The first and the last steps of a stream have less behind or before them: below 5 % here.
    assert abs(mean - predicted) < 4 * error + 0.05 * predicted
    assert error < 0.1 * predicted
    # A control: a row by itself is told apart.
    alone = streaming_variance(law, shared + of_rows)
    assert abs(mean - alone) > 4 * error + 0.05 * alone


def _variance_over_look_backs(law, length, batch, seed):
    """Of the gradient of the last of 8 windows, by all of its look-backs."""
    num_windows = 8
    params = {"theta": jnp.asarray(THETA)}
    stream = _stream(num_windows * length, batch, seed)

    def last_gradient(look_back):
        chosen = truncation.replay(jnp.ones(num_windows, int).at[-1].set(look_back), law)
        estimator = artbp.unbiased_tbptt(
            cell, loss_fn, chosen, truncation_length=length, normalizer=float(batch)
        )
        carry = initial_carry(SYSTEM.decay, SYSTEM.gain, batch)
        state = estimator.init(params, carry, rng_key=jax.random.key(0))

        def window(state, _):
            grads, state, _ = estimator.estimate(params, state, stream)
            return state, grads["theta"]

        return jax.lax.scan(window, state, length=num_windows)[1][-1]

    gradients = jax.lax.map(last_gradient, jnp.arange(1, num_windows + 1))
    chances = -np.diff(np.append(law.survival(np.arange(num_windows)), 0.0))
    return chances @ (gradients - chances @ gradients) ** 2


def test_noise_of_the_look_backs_is_that_of_all_look_backs():
    law, length, batch, num_seeds = truncation.polynomial(1.6, 4), 4, 3, 6000
    gradient = prediction.unbiased_tbptt_gradient(SYSTEM, law, length)
    assert (gradient.slope, gradient.fixed_point) == (SYSTEM.curvature, SYSTEM.optimum)
    x = THETA - SYSTEM.optimum
    at = np.array([1, x, x**2])
    of_rows = gradient.row_noise @ at - prediction._data_noise(SYSTEM, THETA)
    predicted = length * (gradient.shared_noise @ at + of_rows / batch)
    with jax.enable_x64(True):
        one = functools.partial(_variance_over_look_backs, law, length, batch)
        found = np.asarray(jax.jit(jax.vmap(one))(jnp.arange(num_seeds)))
    error = found.std(ddof=1) / np.sqrt(num_seeds)
    assert abs(found.mean() - predicted) < 4 * error < 0.2 * predicted
    # A control: rows that do not share their look-backs are told apart.
    alone = length * (gradient.shared_noise @ at + of_rows) / batch
    assert abs(found.mean() - alone) > 8 * error


def test_look_backs_that_never_end_add_no_noise():
    gradient = prediction.unbiased_tbptt_gradient(SYSTEM, truncation.never(), 5)
    x = THETA - SYSTEM.optimum
    noise = gradient.row_noise @ [1, x, x**2]
    assert noise == pytest.approx(prediction._data_noise(SYSTEM, THETA))
    np.testing.assert_allclose(gradient.shared_noise, 0, atol=1e-12)


def test_equal_memory_and_equal_work():
    config = STUDY.default_config()
    arms = [parse(text) for text in config.arms]
    for arm in arms:
        assert budget.states_stored(config, arm) == pytest.approx(61, abs=0.01)
        assert budget.time_steps(config, arm, "steps") == 3000
    # Look-backs take 1/2 and 1/3 of a window more, forward and backward.
    steps = [budget.time_steps(config, arm, "work") for arm in arms]
    assert steps == [3000, 3000, 3000, 2000, 2250]


def test_the_moments_at_the_end_are_those_of_the_recursion():
    gradient = prediction.Gradient(0.8, 0.6, np.array([2.0, 0.3, 0.7]), np.array([0.1, 0, 0.2]), 4)
    rate, batch, start, steps = 0.02, 3, 1.7, 200
    mean, square = start - 0.6, (start - 0.6) ** 2
    a, b, c = gradient.row_noise / batch + gradient.shared_noise
    for _ in range(steps // 4):
        keep = 1 - rate * 0.8 * 4
        noise = rate**2 * 4 * (a + b * mean + c * square)
        mean, square = keep * mean, keep**2 * square + noise
    off = 0.6 - SYSTEM.optimum
    expected = 0.5 * SYSTEM.curvature * (square + 2 * mean * off + off**2)
    found = prediction.excess_loss(SYSTEM, gradient, batch, rate, start, steps)
    assert found == pytest.approx(expected, rel=1e-10)
    assert prediction.excess_loss(SYSTEM, gradient, batch, 1.0, start, steps) == np.inf


def test_a_law_of_infinite_variance_is_predicted_to_lose():
    geometric = truncation.geometric(8)
    assert prediction.artbp_gradient(System(6.0, 0.5, 1.0), geometric, 8) is not None
    beyond = System(64.0, 0.5, 1.0)
    assert prediction.artbp_gradient(beyond, geometric, 8) is None
    arm = parse("artbp(8, law='geometric')")
    assert study.predict(STUDY.default_config(), beyond, arm, 4, "steps").excess == np.inf
    # For look-backs the limit is known: ρ^{2K} = 1 − c.
    law, limit = truncation.geometric(4 / 3), 2 * 10 / np.log(4)
    assert prediction.unbiased_tbptt_gradient(System(0.99 * limit, 0.5, 1.0), law, 10) is not None
    assert prediction.unbiased_tbptt_gradient(System(1.01 * limit, 0.5, 1.0), law, 10) is None


def test_a_small_map_with_its_trainings(tmp_path):
    small = [
        *(
            "mean_length=8",
            f"arms={ARMS}",
            "num_steps=800",
            "memories=(0.25,1.0)",
            "batches=(4,16)",
        ),
        *("trained_memories=(0.5,)", "trained_batches=(16,)", "rates_per_decade=2"),
        *("num_seeds=32", "num_tuning_runs=8"),
    ]
    config = load_config(STUDY.default_config(), ROOT / "configs" / "phase" / "default.py", small)
    STUDY.main(config, CommandLine(tmp_path / "run", False, False, False))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"phase.png", "phase.svg", "table.md", "results.json", "config.json"} <= names
    rows = json.loads((tmp_path / "run" / "results.json").read_text())
    names = [row["estimator"].split(",")[0] for row in rows]
    assert names == ["TBPTT 8", "TBPTT 29", "ARTBP 8", "unbiased TBPTT 21"] * 2  # in either map
    assert [row["num_steps"] for row in rows] == [800] * 7 + [533]
    assert [row["losses"] for row in rows[:3]] == [row["losses"] for row in rows[4:7]]
    assert rows[3]["losses"] != rows[7]["losses"]
    for row in rows:
        assert abs(np.log10(row["rate"] / row["predicted_rate"])) <= 0.51
        off = abs(row["observed"] - row["predicted"])
        assert off < 5 * row["standard_error"] + 0.3 * row["predicted"]
    assert rows[0]["observed"] > 2 * min(row["observed"] for row in rows)


def _trained(values):
    return study.Trained(Choice(1e-3, 0, False, (1.0,)), np.asarray(values, float))


@pytest.mark.parametrize(
    ("predicted", "excess", "verdict"),
    [
        ((1.0, 2.0), ([1, 1.1, 0.9], [2, 2.1, 1.9]), "yes"),
        ((1.0, 2.0), ([2, 2.1, 1.9], [1, 1.1, 0.9]), "no"),
        ((1.0, 2.0), ([2, 1.0, 2.5], [1, 3.0, 2.0]), "tie"),
        ((1.0, 2.0), ([1, 3.0, 2.0], [2, 1.0, 2.9]), "tie"),
        ((1.0, np.inf), ([1, 1, 1.2], [np.nan, 1, 1]), "yes"),
        ((1.0, 2.0), ([np.nan, 1, 1], [5, 5, 5.1]), "no"),
        # The best of the predicted kind counts.
        ((1.0, 2.0, 1.1), ([9, 9.1, 9], [2, 2.1, 1.9], [1, 1.1, 0.9]), "yes"),
        # So does the best of all other kinds.
        ((1.0, 2.0, 1.1, 3.0), ([9, 9.1, 9], [2, 2.1, 1.9], [1, 1.1, 0.9], [0.5, 0.6, 0.4]), "no"),
    ],
)
def test_a_kind_wins_only_where_seeds_tell_it_from_the_others(predicted, excess, verdict):
    losses = [study.Predicted(value, 1e-3) for value in predicted]
    kinds = ["artbp", "tbptt", "artbp", "unbiased_tbptt"][: len(losses)]
    trained = [_trained(values) for values in excess]
    point = study.Point("steps", 1.0, 1, kinds, losses, trained)
    assert point.verdict == verdict
