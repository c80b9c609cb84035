"""All arms: training at every rate, the choice of the rate, forecasts with the chosen one."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common.arms import Arm, parse
from experiments.common.devices import OverRuns
from experiments.common.optimizers import rate_by_time_step
from experiments.common.pool import in_threads, made_alone
from experiments.common.report import Row
from experiments.common.study import Say
from experiments.common.tuning import choose_rate
from experiments.common.whole_run import train_whole
from experiments.teacher_forcing import model

# Of the series; training takes the even seeds.
VALIDATION_SEED = 1
TEST_SEED = 3


def run(config: Any, say: Say) -> list[Row]:
    """Trains every arm with every seed at every rate: a row for each arm and the two baselines.

    Each seed has its own series, initial weights and boundaries, the same for all arms. The first
    `num_seeds` are reported, the others choose the rates.
    """
    seeds = range(config.seed, config.seed + config.num_seeds + config.num_tuning_runs)
    training = {seed: model.series(2 * seed, config.batch_size, config.num_steps) for seed in seeds}
    length = config.warm_up + config.max_horizon - 1
    validation, test = (
        model.series(seed, config.num_windows, length) for seed in (VALIDATION_SEED, TEST_SEED)
    )
    trainers = {arm: make_trainer(config, arm) for arm in map(parse, config.arms)}
    rates = config.learning_rates

    def train(job: tuple[Arm, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By rate: last loss, mean error on the validation windows, errors on the test windows."""
        arm, free_steps, seed = job
        init_key, boundary_key = jax.random.split(jax.random.key(seed))
        params = made_alone(model.init, init_key, config.hidden_size)
        stream = model.training_stream(training[seed], config.truth_steps, free_steps)
        grid = np.asarray(rates, np.float32)
        all_params, losses = trainers[arm](params, grid, stream, boundary_key)
        validation_errors, errors = (
            model.normalised_errors(all_params, windows, warm_up=config.warm_up)
            for windows in (validation, test)
        )
        return np.asarray(losses), validation_errors.mean(axis=-1), errors

    arms = list(itertools.product(trainers, config.free_steps))
    jobs = [(*arm, seed) for arm in arms for seed in training]

    def words(job: tuple[Arm, int, int], result: Any) -> str:
        return f"{job[0].label}, {fed(job[1])}, seed {job[2]}"

    found = in_threads(train, jobs, config.num_threads, say=say, words=words)
    rows = []
    for arm, free_steps in arms:
        losses, scores, errors = map(np.array, zip(*(next(found) for _ in training), strict=True))
        choice = choose_rate(rates, scores[config.num_seeds :])
        reported = slice(config.num_seeds), choice.index
        row: Row = {"arm": arm.text, "estimator": arm.label, "free_steps": free_steps}
        row |= {"label": fed(free_steps), "learning_rate": choice.rate}
        row |= {"rate_at_edge": choice.at_edge, "validation_scores": choice.scores}
        row["final_training_loss"] = losses[reported].tolist()
        rows.append(row | error_fields(config, errors[reported]))
    reported_series = list(training.values())[: config.num_seeds]
    mean = float(np.mean([one.values.mean(dtype=np.float64) for one in reported_series]))
    for label, forecast in (("persistence", test.values[config.warm_up - 1]), ("constant", mean)):
        errors = model.baseline(test, forecast, warm_up=config.warm_up)
        rows.append({"arm": None, "label": label} | error_fields(config, errors[None]))
    return rows


def fed(free_steps: int) -> str:
    """What the network is fed in training."""
    return f"fed back for {free_steps} steps" if free_steps else "teacher forcing"


def error_fields(config: Any, errors: np.ndarray) -> Row:
    """Of a row; `errors` [seeds, max_horizon]."""
    return {
        "errors": [[float(f"{error:.6g}") for error in run] for run in errors],
        "mean_error": errors.mean(axis=-1).tolist(),
        "accurate_steps": [model.accurate_steps(run, config.threshold) for run in errors],
    }


def make_trainer(config: Any, arm: Arm) -> Callable[..., tuple[Any, jax.Array]]:
    """`train(params, rates, stream, rng_key) -> (params, losses)`, compiled once.

    The params and the losses, of the last fiftieth of the steps, have the rates as first axis.
    """
    normalizer = float(arm.length * config.batch_size)
    estimator = arm.build(model.cell, model.loss_fn, normalizer=normalizer)
    edges = np.array([0, 49 * config.num_steps // 50, config.num_steps])
    optimizer = functools.partial(adam_falling_to_zero, config.num_steps)

    def train(params: Any, rate: Any, stream: artbp.Stream, rng_key: jax.Array) -> Any:
        carry = model.initial_carry(params, config.batch_size)
        given = rate, params, carry, stream, rng_key
        outcome = train_whole(estimator, optimizer, *given, edges=edges)
        return outcome.params, outcome.loss[-1]

    in_axes = (None, 0, None, None)
    return OverRuns(jax.vmap(train, in_axes), in_axes)


def adam_falling_to_zero(num_steps: int, rate: Any) -> optax.GradientTransformation:
    """Adam with the rate (1 − t/T) · `rate`, t in time steps.

    Not in updates, as optax counts: ARTBP makes as many updates as it draws segments.
    """
    falling = rate_by_time_step(lambda t: rate * jnp.maximum(1 - t / num_steps, 0.0))
    return optax.chain(optax.scale_by_adam(), falling)
