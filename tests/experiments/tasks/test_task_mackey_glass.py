"""Mackey-Glass: the integration against a twin, the statistics, forecasts from the past alone."""

import numpy as np
import pytest
import scipy.interpolate
import task_streams

from experiments.tasks import mackey_glass as build
from experiments.tasks.mackey_glass import MEAN, PERSISTENCE, STANDARD_DEVIATION, advance


def _heun(past, num_units, steps_per_unit):
    """x at each unit of time by Heun's method; past(t) is x up to time 0."""
    step, delay = 1 / steps_per_unit, 17 * steps_per_unit
    series = [float(past(-17 + i * step)) for i in range(delay + 1)]

    def slope(x, delayed):
        return 0.2 * delayed / (1 + delayed**10) - 0.1 * x

    for _ in range(num_units * steps_per_unit):
        x, now, soon = series[-1], series[-1 - delay], series[-delay]
        first = slope(x, now)
        series.append(x + step / 2 * (first + slope(x + step * first, soon)))
    return np.array(series[delay + steps_per_unit :: steps_per_unit])


def test_integration_against_a_twin():
    past, ours = np.full(70, 1.2), []
    for _ in range(60):  # a constant past has a kink at its end, which fades
        past = advance(past)
    smooth_past = scipy.interpolate.CubicSpline(np.arange(-69, 1) / 4, past)
    for _ in range(10):
        past = advance(past)
        ours.append(past[-64:][3::4])
    twin = _heun(smooth_past, 160, steps_per_unit=100)
    np.testing.assert_allclose(np.concatenate(ours), twin, atol=1e-5)
    assert np.std(twin) > 0.1


def test_rows_begin_on_the_attractor():
    """After a constant past, x would go one way for 17 units; on the attractor it turns."""
    xs = task_streams.take(build(), 17, batch=200).xs[..., 0]
    rises = np.diff(xs, axis=0) > 0
    assert (rises.all(axis=0) | ~rises.any(axis=0)).mean() < 0.5


def test_targets_are_the_inputs_one_horizon_later():
    rows = task_streams.take(build(horizon=5), 200)
    np.testing.assert_array_equal(rows.targets[:-5], rows.xs[5:])
    assert rows.mask.all()


def test_the_past_forecasts_the_future():
    """The delay equation, integrated from 25 sampled values: the optimum is 0."""
    horizon = 6
    task = build(horizon)
    rows = task_streams.take(task, 60, batch=4)
    errors = []
    for row in range(4):
        for now in (30, 45, 59):
            values = rows.xs[now - 24 : now + 1, row, 0].astype(float) * STANDARD_DEVIATION + MEAN
            past = scipy.interpolate.CubicSpline(np.arange(-24, 1), values)
            forecast = (_heun(past, horizon, 20)[-1] - MEAN) / STANDARD_DEVIATION
            errors.append(forecast - rows.targets[now, row, 0])
    assert np.square(errors).mean() < 1e-3 * task.baselines["persistence"]


@pytest.mark.parametrize("horizon", PERSISTENCE)
def test_losses_of_the_mean_and_of_persistence(horizon):
    task = build(horizon)
    rows = task_streams.take(task, 2000, batch=32, seed=5)
    counts = rows.mask.sum(axis=0)
    constant = np.square(rows.targets).sum(axis=(0, 2))
    task_streams.assert_mean_loss(constant, counts, task.baselines["constant"], resolution=0.1)
    persistence = np.square(rows.targets - rows.xs).sum(axis=(0, 2))
    task_streams.assert_mean_loss(
        persistence, counts, task.baselines["persistence"], resolution=0.1
    )
    # The mean is 0: shifted by 1, so that a relative resolution has a meaning.
    shifted = (rows.targets + 1).sum(axis=(0, 2))
    task_streams.assert_mean_loss(shifted, counts, 1.0)


def test_another_horizon_has_no_measured_persistence():
    horizon = max(PERSISTENCE) + 1
    assert build(horizon).baselines == {"optimum": 0.0, "constant": 1.0}
