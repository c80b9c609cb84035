"""(1) The sign of the meta-gradient along a range of rates, with and without truncation.

    slope(gates)     direction · Σ_t of the gradient of one inner training, with these gates, ÷ T
    TBPTT K          gates 0 at every multiple of K: nothing is drawn
    ARTBP            the mean over draws of the gates
    unbiased TBPTT   the mean over draws of the look-backs, see `look_backs`

averaged over a fixed set of inner trainings. Where the draws alone are random, the standard error
of ARTBP and unbiased TBPTT is exact, because at α = 4 the tails of the draws are too heavy to
estimate it. Where the inner trainings differ, it is that of the differences from full BPTT.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp import diagnostics
from experiments.common.arms import Arm
from experiments.common.report import Row
from experiments.hyperparameters import look_backs
from experiments.hyperparameters.problems import InnerTraining, Params, hyperparameters

# What the hyperparameters move along, in logarithms of the rates (start, end).
LINES = {"constant": (1.0, 1.0), "end": (0.0, 1.0)}


def run(config: Any, problem: InnerTraining, arms: Sequence[Arm], grid: Row) -> list[Row]:
    """A row for each line, rate, and arm with gates or look-backs."""
    arms = [arm for arm in arms if arm.law is not None or arm.look_back is not None]
    number = config.num_sign_trainings if problem.random else 1
    keys = jax.random.split(jax.random.key(config.sign_seed), number)
    draws = config.num_draws if problem.random else config.num_exact_draws
    slopes = _slopes(problem, arms, keys, draws)
    rows = []
    for i, (line, direction) in enumerate(LINES.items()):
        # Constant rates; or the last rate, with the first one at the grid's best.
        low, high = config.start_range if line == "constant" else config.end_range
        rates = np.geomspace(low, high, config.num_sign_points)
        start = rates if line == "constant" else np.full_like(rates, grid["best"][0])
        schedules = np.stack([start, rates], axis=-1)
        measured = np.asarray(slopes(schedules, jnp.asarray(direction), i))
        for rate, schedule, found in zip(rates, schedules, measured, strict=True):
            exact_errors = {}
            if not problem.random:
                params = hyperparameters(*schedule)
                exact_errors = _exact_errors(problem, arms, params, direction, draws)
            for j, arm in enumerate(arms):
                of_trainings, wrong_draws = found[:, j].T
                difference = of_trainings - found[:, 0, 0]
                row = {"part": "signs", "problem": problem.name, "line": line, "rate": float(rate)}
                row |= {"arm": arm.text, "label": arm.label, "random": arm.claims.random}
                row |= {"slope": float(of_trainings.mean()), "bias": float(difference.mean())}
                # Of the slope itself, over inner trainings; and of the bias.
                row["data_error"] = _standard_error(of_trainings)
                row["bias_error"] = exact_errors.get(arm, _standard_error(difference))
                # Of single draws, each beside full BPTT of its own inner training.
                row["wrong_draws"] = float(wrong_draws.mean())
                row["num_draws"] = draws * len(keys) if arm.claims.random else 1
                rows.append(row | {"num_trainings": len(keys)})
    return rows


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def _slopes(problem: InnerTraining, arms: Sequence[Arm], keys: jax.Array, draws: int) -> Any:
    """A function (schedules [N, 2], direction [2], number of the line) -> [N, trainings, arms, 2]:
    the mean slope of the draws, and the share of them with another sign than the first arm's."""
    gated = [arm for arm in arms if arm.law is not None]
    numbers = [draws if arm.claims.random else 1 for arm in gated]

    def patterns(key: jax.Array) -> jax.Array:
        """[patterns, T]: the draws of each arm with gates, or its one pattern."""
        found = []
        for i, (arm, number) in enumerate(zip(gated, numbers, strict=True)):
            assert arm.law is not None
            sample = jax.vmap(arm.law.sample_gates, (0, None))
            own = jax.random.split(jax.random.fold_in(key, i), number)
            found.append(sample(own, problem.num_steps).astype(float))
        return jnp.concatenate(found)

    @jax.jit
    def slopes(trainings: Any, schedules: Any, direction: jax.Array, line: Any = 0) -> jax.Array:
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, line)

        def at(given: tuple[jax.Array, jax.Array]) -> jax.Array:
            schedule, number = given
            params = hyperparameters(schedule[0], schedule[1])

            def of_one(given: Any) -> jax.Array:
                (carry, stream), key = given
                gates = patterns(key)
                grads = diagnostics.gradients_of_gates(
                    problem.cell, problem.loss_fn, params, carry, stream, gates
                )
                both = jnp.stack([grads["log_rate_start"], grads["log_rate_end"]], axis=-1)
                of_arms = dict(
                    zip(gated, jnp.split(both @ direction, np.cumsum(numbers)[:-1]), strict=True)
                )
                for i, arm in enumerate(arms):
                    if arm.look_back is not None:
                        parts = look_backs.slopes_by_distance(
                            problem, params, carry, stream, direction, arm.length
                        )
                        own_key = jax.random.fold_in(key, len(gated) + i)
                        of_arms[arm] = look_backs.draw(arm.look_back, parts, own_key, draws)
                exact = of_arms[arms[0]][0]
                found = [
                    (jnp.mean(slopes), jnp.mean(jnp.sign(slopes) != jnp.sign(exact)))
                    for slopes in map(of_arms.__getitem__, arms)
                ]
                return jnp.array(found) / jnp.array([problem.num_steps, 1])

            # New draws at each schedule: the intervals along a line then miss independently.
            of_schedule = jax.vmap(jax.random.fold_in, (0, None))(own, number)
            return jax.lax.map(of_one, (trainings, of_schedule))

        return jax.lax.map(at, (schedules, jnp.arange(len(schedules))))

    return functools.partial(slopes, jax.jit(jax.vmap(problem.draw))(keys))


def _exact_errors(
    problem: InnerTraining, arms: Sequence[Arm], params: Params, direction: Any, draws: int
) -> dict[Arm, float]:
    """Standard errors of the means over draws, from the exact variance of each law."""
    start, end = map(jnp.asarray, direction)
    along = {"log_rate_start": start, "log_rate_end": end}
    carry, stream = problem.draw(jax.random.key(0))  # the same for all keys
    gated = [arm for arm in arms if arm.claims.random and arm.law is not None]
    laws: Any = [arm.law for arm in gated]
    of_gates = diagnostics.variance_along(
        problem.cell, problem.loss_fn, laws, params, carry, stream, along
    )
    variances = dict(zip(gated, of_gates, strict=True))
    for arm in arms:
        if arm.look_back is not None:
            parts = look_backs.slopes_by_distance(
                problem, params, carry, stream, direction, arm.length
            )
            variances[arm] = look_backs.variance(arm.look_back, parts)
    return {arm: math.sqrt(v / draws) / problem.num_steps for arm, v in variances.items()}
