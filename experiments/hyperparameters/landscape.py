"""The meta loss over both rates, by trying them: what the learned schedules are held against."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.common.report import Row
from experiments.hyperparameters.problems import Params, Problem, hyperparameters


class Landscape(NamedTuple):
    """Losses over a grid of schedules.

    Attributes:
        keys: of the inner trainings that score every schedule.
        start_rates, end_rates: the grid.
        losses: [start, end], mean per step over whole inner trainings; infinite where one diverged.
        best: (start, end), the grid's best.
        best_loss, best_last_loss: there.
    """

    keys: jax.Array
    start_rates: np.ndarray
    end_rates: np.ndarray
    losses: np.ndarray
    best: tuple[float, float]
    best_loss: float
    best_last_loss: float


def losses_of(problem: Problem, params: Params, key: jax.Array) -> jax.Array:
    """The meta loss after each step of one inner training, [T]."""
    carry, stream = problem.draw(key)
    xs = jnp.zeros(problem.num_steps) if stream.xs is None else stream.xs

    def step(params: Params, carry: Any, x: Any) -> tuple[Any, jax.Array]:
        carry, y = problem.cell(params, carry, x)
        return carry, problem.loss_fn(params, y, None)

    return artbp.unroll(step, params, carry, xs)[1]


def make(config: Any, problem: Problem) -> Landscape:
    """Tries every pair of rates on the same inner trainings."""
    number = config.num_scoring if problem.random else 1
    keys = jax.random.split(jax.random.key(config.scoring_seed), number)
    start, end = (
        np.geomspace(ends[0], ends[1], config.grid_size)
        for ends in (config.start_range, config.end_range)
    )
    empty = Landscape(keys, start, end, np.empty(0), (0.0, 0.0), 0.0, 0.0)
    losses, last = scores(problem, empty, np.stack(np.meshgrid(start, end, indexing="ij"), axis=-1))
    at = np.unravel_index(np.argmin(losses), losses.shape)
    best = (float(start[at[0]]), float(end[at[1]]))
    return Landscape(keys, start, end, losses, best, float(losses[at]), float(last[at]))


def row(problem: Problem, landscape: Landscape) -> Row:
    """As a row of the results."""
    return {
        "part": "landscape",
        "problem": problem.name,
        "label": problem.label,
        "start_rates": landscape.start_rates.tolist(),
        "end_rates": landscape.end_rates.tolist(),
        "losses": landscape.losses.tolist(),
        "best": list(landscape.best),
        "best_loss": landscape.best_loss,
        "best_last_loss": landscape.best_last_loss,
        "num_trainings": len(landscape.keys),
    }


def scores(
    problem: Problem, landscape: Landscape, rates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(mean loss per step, loss after the last step) of schedules, rates [..., 2]; over the
    landscape's inner trainings, infinite where one of them diverged."""
    flat = jnp.asarray(rates).reshape(-1, 2)
    mean, last = _scores(problem, landscape.keys, flat)
    found = [np.asarray(values).reshape(rates.shape[:-1]) for values in (mean, last)]
    mean, last = (np.where(np.isnan(values), np.inf, values) for values in found)
    return mean, last


def _scores(problem: Problem, keys: jax.Array, rates: jax.Array) -> tuple[jax.Array, jax.Array]:
    @jax.jit
    def of_all(rates: jax.Array) -> tuple[jax.Array, jax.Array]:
        def of_one(pair: jax.Array) -> tuple[jax.Array, jax.Array]:
            params = hyperparameters(pair[0], pair[1])
            losses = jax.vmap(lambda key: losses_of(problem, params, key))(keys)
            return jnp.mean(losses), jnp.mean(losses[:, -1])

        return jax.lax.map(of_one, rates, batch_size=16)

    return of_all(rates)
