"""(1) The sign of the meta-gradient along a range of rates: exact, and as each truncation has it.

    slope(gates) = direction · Σ_t of the gradient of one inner training, with these gates, ÷ T
    TBPTT K      gates 0 at every multiple of K: no chance in it
    ARTBP        the mean over draws of the gates

averaged over a fixed set of inner trainings. The unrolls of all methods share one forward pass.
Where nothing but the boundaries is random, ARTBP's standard error is exact
(`artbp.diagnostics.variance_along`): the draws at α = 4 have tails too heavy for their own spread
to be trusted. Where the inner trainings differ, each has boundaries of its own, and the error of
ARTBP is that of the differences from full BPTT, training by training, as they come.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp import diagnostics
from experiments.common.report import Row
from experiments.hyperparameters.landscape import Landscape
from experiments.hyperparameters.methods import Method, backward_methods
from experiments.hyperparameters.problems import Params, Problem, hyperparameters

# What the hyperparameters move along, in logarithms of the rates (start, end).
LINES = {"constant": (1.0, 1.0), "end": (0.0, 1.0)}


def points(config: Any, landscape: Landscape, line: str) -> tuple[np.ndarray, np.ndarray]:
    """(rates along the axis, schedules [N, 2]): constant rates; or the last rate, with the first
    one at the grid's best."""
    ends = {"constant": config.start_range, "end": config.end_range}[line]
    rates = np.geomspace(ends[0], ends[1], config.num_sign_points)
    start = rates if line == "constant" else np.full_like(rates, landscape.best[0])
    return rates, np.stack([start, rates], axis=-1)


def run(config: Any, problem: Problem, landscape: Landscape) -> list[Row]:
    """A row for each line, method and rate."""
    methods = backward_methods(config, problem)
    keys = jax.random.split(
        jax.random.key(config.sign_seed), config.num_sign_trainings if problem.random else 1
    )
    draws = config.num_draws if problem.random else config.num_exact_draws
    slopes = _slopes(problem, methods, keys, draws)
    rows = []
    for number, (line, direction) in enumerate(LINES.items()):
        rates, schedules = points(config, landscape, line)
        along = direction_of(direction)
        measured = np.asarray(slopes(schedules, jnp.asarray(direction), number))
        found, wrong_draws = measured[..., 0], measured[..., 1]
        for i, rate in enumerate(rates):
            params = hyperparameters(*schedules[i])
            exact_errors = {}
            if not problem.random:
                exact_errors = _exact_errors(problem, methods, params, along, keys[0], draws)
            for j, method in enumerate(methods):
                of_trainings = found[i, :, j]
                difference = of_trainings - found[i, :, 0]
                error = exact_errors.get(method)
                if error is None:
                    error = _standard_error(difference)
                rows.append(
                    {
                        "part": "signs",
                        "problem": problem.name,
                        "line": line,
                        "rate": float(rate),
                        "method": method.label,
                        "kind": method.kind,
                        "slope": float(of_trainings.mean()),
                        # Of the slope itself, over inner trainings; and of the bias.
                        "data_error": _standard_error(of_trainings),
                        "bias": float(difference.mean()),
                        "bias_error": error,
                        # Of single draws, each beside full BPTT of its own inner training.
                        "wrong_draws": float(wrong_draws[i, :, j].mean()),
                        "num_trainings": len(keys),
                        "num_draws": draws * len(keys) if method.kind == "artbp" else 1,
                    }
                )
    return rows


def direction_of(direction: tuple[float, float]) -> Params:
    """A direction as params."""
    return {
        "log_rate_start": jnp.asarray(direction[0]),
        "log_rate_end": jnp.asarray(direction[1]),
    }


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def _slopes(problem: Problem, methods: list[Method], keys: jax.Array, draws: int) -> Any:
    """(schedules [N, 2], direction [2], number of the line) -> [N, trainings, methods, 2]: the mean
    slope of the draws, and the share of them with another sign than full BPTT's."""
    trainings = jax.jit(jax.vmap(problem.draw))(keys)

    def patterns(key: jax.Array) -> jax.Array:
        """[patterns, T]: one of each method without chance, then the draws of each law."""
        found = []
        for i, method in enumerate(methods):
            law = method.law()
            number = draws if method.kind == "artbp" else 1
            own = jax.random.split(jax.random.fold_in(key, i), number)
            found.append(jax.vmap(lambda k, law=law: law.sample_gates(k, problem.num_steps))(own))
        return jnp.concatenate([gates.astype(float) for gates in found])

    def averaged(values: jax.Array) -> jax.Array:
        found, first = [], 0
        for method in methods:
            number = draws if method.kind == "artbp" else 1
            own = values[first : first + number]
            is_wrong = jnp.sign(own) != jnp.sign(values[0])  # full BPTT is the first method
            found.append(jnp.stack([jnp.mean(own), jnp.mean(is_wrong)]))
            first += number
        return jnp.stack(found)

    @jax.jit
    def of_all(trainings: Any, keys: jax.Array, schedules: jax.Array, direction: jax.Array) -> Any:
        def of_one(schedule: jax.Array, training: Any, gates: jax.Array) -> jax.Array:
            carry, stream = training
            params = hyperparameters(schedule[0], schedule[1])
            grads = diagnostics.gradients_of_gates(
                problem.cell, problem.loss_fn, params, carry, stream, gates
            )
            both = jnp.stack([grads["log_rate_start"], grads["log_rate_end"]], axis=-1)
            return averaged(both @ direction / problem.num_steps)

        def at(given: tuple[jax.Array, jax.Array]) -> jax.Array:
            schedule, number = given
            # New draws at each schedule: the intervals along a line then miss independently.
            gates = jax.vmap(patterns)(jax.vmap(jax.random.fold_in, (0, None))(keys, number))
            return jax.lax.map(lambda training: of_one(schedule, *training), (trainings, gates))

        return jax.lax.map(at, (schedules, jnp.arange(len(schedules))))

    def slopes(schedules: np.ndarray, direction: jax.Array, number: int = 0) -> jax.Array:
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
        return of_all(trainings, own, jnp.asarray(schedules), direction)

    return slopes


def _exact_errors(
    problem: Problem,
    methods: list[Method],
    params: Params,
    direction: Params,
    key: jax.Array,
    draws: int,
) -> dict[Method, float]:
    """Standard errors of the means over draws, from the exact variance of each law."""
    carry, stream = problem.draw(key)
    random = [method for method in methods if method.kind == "artbp"]
    variances = diagnostics.variance_along(
        problem.cell,
        problem.loss_fn,
        [method.law() for method in random],
        params,
        carry,
        stream,
        direction,
    )
    return {
        method: math.sqrt(variance / draws) / problem.num_steps
        for method, variance in zip(random, variances, strict=True)
    }
