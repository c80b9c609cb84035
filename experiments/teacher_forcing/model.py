"""A GRU that forecasts one step ahead, from the true value or its own last forecast.

The data, and the error of forecasts k steps ahead, when the network runs freely after a warm-up:

    normalised RMSE(k) = √ mean over windows (forecast k steps ahead − truth)² / sd of the truth
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.tasks import losses, mackey_glass

core = artbp.cells.gru


class Input(NamedTuple):
    """value: float [B, 1], the true one; shown: bool [B], whether the cell sees it."""

    value: Any
    shown: Any


class Carry(NamedTuple):
    """hidden: float [B, H], of the GRU; forecast: float [B, 1], of the value that comes next."""

    hidden: Any
    forecast: Any


def cell(params: Any, carry: Carry, x: Input) -> tuple[Carry, jax.Array]:
    """One step; y is the new forecast, [B, 1].

        u = x.value where x.shown, else carry.forecast
        hidden = GRU(carry.hidden, u)
        forecast = readout(hidden)

    A forecast that is fed back is differentiated like the rest of the carry: its gradient goes
    through the gate too. The readout is part of the cell because its result is fed back.
    """
    u = jnp.where(x.shown[:, None], x.value, carry.forecast)
    hidden, y = core(params["cell"], carry.hidden, u)
    forecast = losses.readout(params, y)
    return Carry(hidden, forecast), forecast


def loss_fn(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
    """(y − target)², [B]."""
    return jnp.sum(jnp.square(y - target), axis=-1)


def init(rng_key: jax.Array, hidden_size: int) -> Any:
    """{"cell": of artbp.cells.gru, "readout": {"kernel", "bias"}}."""
    cell_key, readout_key = jax.random.split(rng_key)
    return {
        "cell": core.init(cell_key, 1, hidden_size),
        "readout": losses.init_readout(readout_key, hidden_size, 1),
    }


def initial_carry(params: Any, batch_size: int) -> Carry:
    """Zeros: a forecast of zero is the mean of the standardised series."""
    hidden = core.initial_carry(params["cell"], batch_size)
    return Carry(hidden, jnp.zeros((batch_size, 1), hidden.dtype))


class Series(NamedTuple):
    """values[t] and the value after it, nexts[t]; float32 [T, B, 1]."""

    values: np.ndarray
    nexts: np.ndarray


def series(seed: int, num_rows: int, num_steps: int) -> Series:
    """Independent trajectories, one per row."""
    chunk = next(mackey_glass(horizon=1).chunks(seed, num_rows, num_steps))
    return Series(np.asarray(chunk.stream.xs), np.asarray(chunk.stream.targets))


def shown(num_steps: int, num_rows: int, *, truth_steps: int, free_steps: int) -> np.ndarray:
    """Where the truth is shown, bool [T, B]: `truth_steps` steps, then not for `free_steps`, ...

    Rows are shifted against each other by equal parts of the period, so that every update sees
    all ages of a free run. All rows begin with `truth_steps` steps of truth. free_steps = 0:
    teacher forcing.
    """
    period = truth_steps + free_steps
    steps, rows = np.arange(num_steps)[:, None], np.arange(num_rows)[None, :]
    phase = (steps + rows * period // num_rows) % period
    return (phase < truth_steps) | (steps < truth_steps)


def training_stream(given: Series, truth_steps: int, free_steps: int) -> artbp.Stream:
    """The stream of one arm. Every step counts, whether the truth was shown or not."""
    num_steps, num_rows, _ = given.values.shape
    visible = shown(num_steps, num_rows, truth_steps=truth_steps, free_steps=free_steps)
    return artbp.Stream(Input(given.values, visible), given.nexts)


@functools.partial(jax.jit, static_argnames="warm_up")
def squared_errors(params: Any, windows: Series, *, warm_up: int) -> jax.Array:
    """Mean over windows of the squared error, [max_horizon], of a free run after the warm-up.

    The step warm_up − 1 is the last that sees the truth.
    """
    num_steps, num_windows, _ = windows.values.shape
    visible = jnp.broadcast_to(jnp.arange(num_steps)[:, None] < warm_up, (num_steps, num_windows))
    carry = initial_carry(params, num_windows)
    _, ys = artbp.unroll(cell, params, carry, Input(windows.values, visible))
    return jnp.mean(jnp.square(ys - windows.nexts), axis=(1, 2))[warm_up - 1 :]


def normalised_errors(all_params: Any, windows: Series, *, warm_up: int) -> np.ndarray:
    """Normalised RMSE, [R, max_horizon], for parameters with a first axis [R]."""
    run = jax.vmap(functools.partial(squared_errors, warm_up=warm_up), in_axes=(0, None))
    return np.sqrt(np.asarray(run(all_params, windows), np.float64)) / deviation(windows)


def baseline(windows: Series, forecast: Any, *, warm_up: int) -> np.ndarray:
    """The same of a forecast that does not change with the horizon, [max_horizon]."""
    errors = np.square(windows.nexts[warm_up - 1 :] - forecast)
    return np.sqrt(np.mean(errors, axis=(1, 2), dtype=np.float64)) / deviation(windows)


def deviation(windows: Series) -> float:
    """The standard deviation of all true values."""
    return float(np.std(windows.nexts, dtype=np.float64))


def accurate_steps(errors: Sequence[float] | np.ndarray, threshold: float) -> int:
    """For how many steps from the first on the error stays below the threshold."""
    above = np.flatnonzero(~(np.asarray(errors) < threshold))
    return int(above[0]) if len(above) else len(errors)
