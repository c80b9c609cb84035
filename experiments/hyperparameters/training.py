"""(2) Learning the schedule: inner training after inner training, one update per estimate.

    for each inner training:
        carry, stream = new first weights, new minibatches
        until the stream ends:
            gradient, state, info = estimator.estimate(params, state, stream)
            params -= outer_rate · (1 − inner steps done / all) · Adam(gradient)

Every inner training is a stream of its own, so that the perturbations of PES start anew. Adam makes
the scale of a gradient immaterial: the same few outer rates serve every arm. The outer rate falls
to zero, so that the noise of the updates is averaged. Adam's step is not an unbiased step.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common.arms import Arm, Size
from experiments.common.devices import OverRuns
from experiments.common.pool import in_threads
from experiments.common.report import Row
from experiments.common.study import Say
from experiments.common.tuning import choose_rate
from experiments.hyperparameters import problems
from experiments.hyperparameters.problems import InnerTraining, Params, rates_of


def build(arm: Arm, problem: InnerTraining) -> artbp.GradientEstimator:
    """Its gradients of one stream sum to that of the mean meta loss per inner step."""
    options: dict[str, Any] = {"normalizer": float(problem.num_steps)}
    if arm.claims.segmentwise:
        # No longer than the longest segment: the buffers are zeroed at each new inner training.
        options["block_size"] = min(256, problem.num_steps)
    if arm.look_back is not None:
        # No more than there are windows, for the same reason.
        options["stored_carries"] = -(-problem.num_steps // arm.length)
    return arm.build(problem.cell, problem.loss_fn, **options)


def outer_training(
    problem: InnerTraining,
    estimator: artbp.GradientEstimator,
    params: Params,
    outer_rate: Any,
    trainings: Any,
    keys: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """One outer training, in one program; may be vmapped over `outer_rate`.

    `trainings` are (carry, stream) of N inner trainings, and `keys` [N] those of the estimator.
    Returns the rates of the first and the last step, [N + 1, 2], at the start and after each inner
    training; and the number of updates.
    """
    adam = optax.scale_by_adam()
    num_steps = len(keys) * problem.num_steps

    def inner_training(outer: Any, given: Any) -> tuple[Any, jax.Array]:
        (carry, stream), key = given

        def update(walk: Any) -> Any:
            (params, opt_state, step), state, _ = walk
            grads, state, info = estimator.estimate(params, state, stream)
            updates, opt_state = adam.update(grads, opt_state)
            rate = outer_rate * (1 - step.astype(jnp.result_type(float)) / num_steps)
            params = jax.tree.map(lambda x, change: x - rate * change, params, updates)
            return (params, opt_state, step + info.length), state, info.end_of_stream

        state = estimator.init(outer[0], carry, rng_key=key)
        walk = outer, state, jnp.zeros((), bool)
        outer, _, _ = jax.lax.while_loop(lambda walk: ~walk[-1], update, walk)
        return outer, jnp.stack(rates_of(outer[0]))

    start: Any = params, adam.init(params), jnp.zeros((), jnp.int32)
    (_, opt_state, _), path = jax.lax.scan(inner_training, start, (trainings, keys))
    return jnp.concatenate([jnp.stack(rates_of(params))[None], path]), opt_state.count


def run(config: Any, problem: InnerTraining, arms: Sequence[Arm], say: Say) -> list[Row]:
    """Every arm at the outer rate that is best on the tuning runs, on the reported runs."""
    # Compiled once for all arms: the random numbers take longer to compile than the training.
    draw = jax.jit(jax.vmap(problem.draw))

    def train(arm: Arm) -> Row:
        with jax.enable_x64(True):  # a thread begins with JAX's defaults
            return train_arm(config, problem, arm, draw)

    def words(arm: Arm, row: Row) -> str:
        return f"{problem.name}: {arm.label} trained, outer rate {row['outer_rate']:g}"

    return list(in_threads(train, arms, config.num_threads, say=say, words=words))


def train_arm(config: Any, problem: InnerTraining, arm: Arm, draw: Any) -> Row:
    """Chooses the outer rate, trains, and scores; `draw` is vmapped over keys."""
    params = problems.hyperparameters(config.first_rate, config.first_rate)

    def at_rate(rate: jax.Array, trainings: Any, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        return outer_training(problem, build(arm, problem), params, rate, trainings, keys)

    train = OverRuns(jax.vmap(at_rate, (0, None, None)), in_axes=(0, None, None))
    tuning = config.num_tuning_runs
    seeds = range(config.seed, config.seed + tuning + config.num_seeds)
    if not (problem.random or arm.claims.random):
        seeds, tuning = seeds[:1], 0  # every run is the same training
    found = []
    for seed in seeds:
        keys = jax.random.split(jax.random.key(seed))
        data_keys, estimator_keys = (jax.random.split(key, config.num_trainings) for key in keys)
        found.append(train(jnp.array(config.outer_rates), draw(data_keys), estimator_keys))
    paths = np.array([path for path, _ in found])  # [runs, outer rates, N + 1, 2]
    loss, last_loss = problems.scores(config, problem, paths[:, :, -1])
    choice = choose_rate(config.outer_rates, loss[:tuning] if tuning else loss)
    best = choice.index
    loss, last_loss, reported = loss[tuning:], last_loss[tuning:], paths[tuning:, best]
    row = {"part": "training", "problem": problem.name, "arm": arm.text, "label": arm.label}
    row |= {"outer_rate": choice.rate, "at_edge": choice.at_edge}
    row |= {"losses": loss[:, best].tolist(), "last_losses": last_loss[:, best].tolist()}
    row["losses_by_outer_rate"] = np.median(loss, axis=0).tolist()
    row |= {"rates": reported[:, -1].tolist(), "median_path": np.median(reported, axis=0).tolist()}
    row["num_updates"] = int(np.median([num_updates[best] for _, num_updates in found[tuning:]]))
    row["inner_steps"] = config.num_trainings * problem.num_steps
    carry, _ = jax.eval_shape(problem.draw, jax.random.key(0))
    floats = [x.size for x in jax.tree.leaves(carry) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return row | {"evaluations": arm.evaluations(Size(num_params=2, num_states=sum(floats)))}
