"""(2) Learning the schedule: inner training after inner training, one update per estimate.

    for each inner training:
        carry, stream = new first weights, new minibatches
        until the stream ends:
            gradient, state, info = estimator.estimate(params, state, stream)
            params -= outer_rate · (1 − inner steps done / all) · Adam(gradient)

Every inner training is a stream of its own, rather than all of them one stream with resets: the
end of a stream is where PES forgets its perturbations, whose sum would grow without bound. Adam
makes the scale of a gradient immaterial, so the same few outer rates serve every method. Its step
is no unbiased step, whatever the gradient is; the outer rate falls to zero so that what is left
of the noise is averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common.pool import in_threads
from experiments.common.report import Row
from experiments.hyperparameters.landscape import Landscape, scores
from experiments.hyperparameters.methods import Method, methods
from experiments.hyperparameters.problems import Params, Problem, hyperparameters, rates_of


class Path(NamedTuple):
    """Where an outer training went.

    Attributes:
        rates: float [N + 1, 2], rate of the first and the last step, at the start and after each
            of N inner trainings.
        num_updates: int32.
    """

    rates: Any
    num_updates: Any


class _Loop(NamedTuple):
    params: Params
    opt_state: Any
    step: jax.Array
    num_updates: jax.Array


def outer_training(
    problem: Problem,
    estimator: artbp.GradientEstimator,
    params: Params,
    outer_rate: Any,
    trainings: Any,
    keys: jax.Array,
) -> Path:
    """One outer training, in one program; may be vmapped over `outer_rate`.

    Args:
        problem, estimator, params: the first params.
        outer_rate: of the first update, per update.
        trainings: (carry, stream) as `draw` returns them, with an axis of N inner trainings.
        keys: [N], of the estimator in each.
    """
    adam = optax.scale_by_adam()
    num_steps = len(keys) * problem.num_steps

    def inner_training(loop: _Loop, given: Any) -> tuple[_Loop, jax.Array]:
        (carry, stream), key = given
        state = estimator.init(loop.params, carry, rng_key=key)

        def update(walk: tuple[_Loop, Any, jax.Array]) -> tuple[_Loop, Any, jax.Array]:
            loop, state, _ = walk
            grads, state, info = estimator.estimate(loop.params, state, stream)
            updates, opt_state = adam.update(grads, loop.opt_state)
            rate = outer_rate * (1 - loop.step.astype(jnp.result_type(float)) / num_steps)
            params = jax.tree.map(lambda x, change: x - rate * change, loop.params, updates)
            loop = _Loop(params, opt_state, loop.step + info.length, loop.num_updates + 1)
            return loop, state, info.end_of_stream

        walk = (loop, state, jnp.zeros((), bool))
        loop, _, _ = jax.lax.while_loop(lambda walk: ~walk[-1], update, walk)
        return loop, jnp.stack(rates_of(loop.params))

    none = jnp.zeros((), jnp.int32)
    start = _Loop(params, adam.init(params), none, none)
    loop, path = jax.lax.scan(inner_training, start, (trainings, keys))
    first = jnp.stack(rates_of(params))[None]
    return Path(jnp.concatenate([first, path]), loop.num_updates)


def run(
    config: Any, problem: Problem, landscape: Landscape, say: Callable[[str], None]
) -> list[Row]:
    """Every method at the outer rate that is best on the tuning seeds, on the reported seeds."""

    # Compiled once for all methods: the random numbers take longer to compile than the training.
    draw = jax.jit(jax.vmap(problem.draw))

    def train(method: Method) -> Row:
        with jax.enable_x64(True):  # a thread begins with JAX's defaults
            row = train_method(config, problem, landscape, method, draw)
        say(f"{problem.name}: trained with {method.label}")
        return row

    return list(in_threads(train, methods(config, problem), config.num_threads))


def train_method(
    config: Any, problem: Problem, landscape: Landscape, method: Method, draw: Any
) -> Row:
    """Chooses the outer rate, trains, and scores; `draw` is vmapped over keys."""
    estimator = method.estimator(config, problem)
    rates = jnp.array(config.outer_rates)
    params = hyperparameters(config.first_rate, config.first_rate)

    @jax.jit
    def train(trainings: Any, keys: jax.Array) -> Path:
        def at_rate(rate: jax.Array) -> Path:
            return outer_training(problem, estimator, params, rate, trainings, keys)

        return jax.vmap(at_rate)(rates)

    first, tuning = config.seed, config.num_tuning_seeds
    seeds = list(range(first, first + tuning + config.num_seeds))
    if not problem.random and method.kind in ("bptt", "tbptt"):
        seeds, tuning = seeds[:1], 0  # every seed is the same training
    found = []
    for seed in seeds:
        data_key, estimator_key = jax.random.split(jax.random.key(seed))
        trainings = draw(jax.random.split(data_key, config.num_trainings))
        found.append(train(trainings, jax.random.split(estimator_key, config.num_trainings)))
    paths = np.array([path.rates for path in found])  # [seeds, outer rates, N + 1, 2]
    loss, last_loss = scores(problem, landscape, paths[:, :, -1])
    best = chosen_rate(loss[:tuning] if tuning else loss)
    reported = slice(tuning, None)
    return {
        "part": "training",
        "problem": problem.name,
        "method": method.label,
        "kind": method.kind,
        "length": method.length,
        "alpha": method.alpha,
        "outer_rate": config.outer_rates[best],
        "at_edge": best in (0, len(config.outer_rates) - 1),
        "losses": loss[reported, best].tolist(),
        "last_losses": last_loss[reported, best].tolist(),
        "rates": paths[reported, best, -1].tolist(),
        "median_path": np.median(paths[reported, best], axis=0).tolist(),
        "losses_by_outer_rate": np.median(loss[reported], axis=0).tolist(),
        "num_updates": int(np.median([path.num_updates[best] for path in found])),
        "inner_steps": config.num_trainings * problem.num_steps,
        "evaluations": method.evaluations,
    }


def chosen_rate(losses: np.ndarray | Sequence[Any]) -> int:
    """The outer rate of the smallest median over seeds of losses [seeds, rates], NaN the worst."""
    losses = np.asarray(losses)
    return int(np.argmin(np.median(np.where(np.isnan(losses), np.inf, losses), axis=0)))
