"""Errors of free runs, and baselines."""

import jax
import numpy as np
import pytest

from experiments.tasks import losses
from experiments.teacher_forcing import model
from experiments.teacher_forcing.model import Series

WARM_UP, HORIZON = 5, 4


@pytest.fixture
def windows():
    return model.series(1, 3, WARM_UP + HORIZON - 1)


def test_errors_against_a_loop_in_python(windows):
    params = jax.tree.map(lambda leaf: leaf + 0.1, model.init(jax.random.key(0), 4))
    carry = model.initial_carry(params, 3)
    hidden, forecast = carry.hidden, carry.forecast
    for t in range(WARM_UP):
        hidden, y = model.core(params["cell"], hidden, windows.values[t])
        forecast = losses.readout(params, y)
    squares = []
    for k in range(HORIZON):
        truth = windows.nexts[WARM_UP - 1 + k]
        squares.append(np.mean((np.asarray(forecast) - truth) ** 2))
        hidden, y = model.core(params["cell"], hidden, forecast)
        forecast = losses.readout(params, y)
    errors = model.squared_errors(params, windows, warm_up=WARM_UP)
    np.testing.assert_allclose(errors, squares, rtol=1e-5)
    both = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), params)
    normalised = model.normalised_errors(both, windows, warm_up=WARM_UP)
    assert normalised.shape == (2, HORIZON)
    expected = np.sqrt(squares) / np.std(windows.nexts)
    np.testing.assert_allclose(normalised[1], expected, rtol=1e-4)


def test_baselines(windows):
    # The truth of one step ahead is the next value of the series.
    np.testing.assert_array_equal(windows.nexts[:-1], windows.values[1:])
    assert windows.values.shape == (WARM_UP + HORIZON - 1, 3, 1)
    values = np.arange(1.0, 5.0)[:, None, None] * np.ones((1, 2, 1))
    given = Series(values, values + 1)
    deviation = np.std([2.0, 3.0, 4.0, 5.0])
    persistence = model.baseline(given, given.values[1], warm_up=2)
    np.testing.assert_allclose(persistence, np.array([1.0, 2.0, 3.0]) / deviation)
    constant = model.baseline(given, 4.0, warm_up=2)
    np.testing.assert_allclose(constant, np.array([1.0, 0.0, 1.0]) / deviation)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [([0.1, 0.2, 0.6, 0.1], 2), ([0.6, 0.1], 0), ([0.1, 0.1], 2), ([0.1, np.nan, 0.1], 1)],
)
def test_accurate_steps(errors, expected):
    assert model.accurate_steps(errors, 0.5) == expected
