"""Forecasts of a network that is warmed up on true values and then runs freely.

normalised RMSE(k) = √ mean over windows (forecast k steps ahead − truth)² / sd of the truth
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.teacher_forcing import model
from experiments.teacher_forcing.model import Series, series


def windows(seed: int, num_windows: int, *, warm_up: int, max_horizon: int) -> Series:
    """Independent windows; the step warm_up − 1 is the last that sees the truth."""
    return series(seed, num_windows, warm_up + max_horizon - 1)


@functools.partial(jax.jit, static_argnames="warm_up")
def squared_errors(params: Any, given: Series, *, warm_up: int) -> jax.Array:
    """Mean over windows of the squared error, [max_horizon], of a free run after the warm-up."""
    num_steps, num_windows, _ = given.values.shape
    visible = jnp.broadcast_to(jnp.arange(num_steps)[:, None] < warm_up, (num_steps, num_windows))
    carry = model.initial_carry(params, num_windows)
    _, ys = artbp.unroll(model.cell, params, carry, model.Input(given.values, visible))
    return jnp.mean(jnp.square(ys - given.nexts), axis=(1, 2))[warm_up - 1 :]


def normalised_errors(all_params: Any, given: Series, *, warm_up: int) -> np.ndarray:
    """Normalised RMSE, [R, max_horizon], for parameters with a first axis [R]."""
    run = jax.vmap(functools.partial(squared_errors, warm_up=warm_up), in_axes=(0, None))
    return np.sqrt(np.asarray(run(all_params, given), np.float64)) / deviation(given)


def baseline(given: Series, forecast: Any, *, warm_up: int) -> np.ndarray:
    """The same of a forecast that does not change with the horizon, [max_horizon]."""
    errors = np.square(given.nexts[warm_up - 1 :] - forecast)
    return np.sqrt(np.mean(errors, axis=(1, 2), dtype=np.float64)) / deviation(given)


def deviation(given: Series) -> float:
    """The standard deviation of all true values."""
    return float(np.std(given.nexts, dtype=np.float64))


def accurate_steps(errors: Sequence[float] | np.ndarray, threshold: float) -> int:
    """For how many steps from the first on the error stays below the threshold."""
    above = np.flatnonzero(~(np.asarray(errors) < threshold))
    return int(above[0]) if len(above) else len(errors)
