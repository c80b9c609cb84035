"""From an arm to its test accuracies at every lag."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common.pool import in_threads
from experiments.common.whole_run import train_whole
from experiments.memory.config import Arm
from experiments.memory.episodes import NUM_ITEMS, NUM_SYMBOLS, counted_lags, make_stream
from experiments.tasks import losses


class Result(NamedTuple):
    """An arm, trained on the loss at every lag (training 0) and at each of `config.lags` alone.

    Attributes:
        arm: what was trained.
        tuning: [rates, trainings], loss in nats over the last quarter of the tuning runs.
        learning_rates: [trainings], the best of each.
        accuracy: [seeds, trainings, lags], on test episodes, at every lag 0, ..., length − 1.
    """

    arm: Arm
    tuning: np.ndarray
    learning_rates: np.ndarray
    accuracy: np.ndarray

    def own_lag(self, lags: Sequence[int]) -> np.ndarray:
        """[seeds, len(lags)], at each lag the accuracy of the training on that lag alone."""
        return np.stack([self.accuracy[:, 1 + i, lag] for i, lag in enumerate(lags)], axis=1)


def make_estimator(arm: Arm, config: Any) -> artbp.GradientEstimator:
    """The estimator of an arm.

    Gradients are divided by the mean number of steps of a segment, whether their losses count or
    not: Adam does not mind the scale.
    """
    select: Callable[[Any], Any] = lambda params: params["cell"]  # noqa: E731
    if arm.kind == "frozen":
        select = lambda params: jax.lax.stop_gradient(params["cell"])  # noqa: E731
    cell = artbp.cells.lstm.with_params(select)
    loss_fn, normalizer = losses.cross_entropy, float(arm.length * config.batch)
    if arm.kind == "artbp":
        law = artbp.truncation.polynomial(arm.length, config.alpha)
        return artbp.artbp(cell, loss_fn, law, normalizer=normalizer, policy="dynamic")
    return artbp.tbptt(
        cell, loss_fn, truncation_length=arm.length, normalizer=normalizer, policy="dynamic"
    )


def make_runs(config: Any) -> list[tuple[Any, Any]]:
    """(first weights, key) of the runs to tune on, and then of each seed."""
    runs = []
    num_runs = config.num_tuning_runs + config.num_seeds
    for key in jax.random.split(jax.random.key(config.seed), num_runs):
        cell_key, readout_key, run_key = jax.random.split(key, 3)
        params = {
            "cell": artbp.cells.lstm.init(cell_key, NUM_SYMBOLS, config.hidden_size),
            "readout": losses.init_readout(readout_key, config.hidden_size, NUM_ITEMS),
        }
        runs.append((params, run_key))
    return runs


def train_arm(config: Any, arm: Arm, runs: Sequence[tuple[Any, Any]]) -> Result:
    """Tunes the learning rate of each training on the first runs, and trains the others with it."""
    length, num_steps = config.episode_length, config.num_episodes * config.episode_length
    counted = counted_lags(length, tuple(config.lags))
    edges = np.array([0, 3 * config.num_episodes // 4 * length, num_steps])

    def train_one(
        rate: Any, lags: Any, params: Any, stream: artbp.Stream, key: Any
    ) -> tuple[Any, Any]:
        carry = artbp.cells.lstm.initial_carry(params["cell"], config.batch)
        mask = jnp.broadcast_to(jnp.tile(lags, config.num_episodes)[:, None], stream.xs.shape)
        stream = artbp.Stream(stream.xs, stream.targets, resets=stream.resets, mask=mask)
        run = train_whole(
            make_estimator(arm, config),
            optax.adam,
            rate,
            params,
            carry,
            stream,
            key,
            edges=edges,
        )
        return run.params, run.loss[-1]

    @jax.jit
    def train_rows(rates: Any, lags: Any, params: Any, key: Any) -> tuple[Any, Any]:
        """One row for each training; all have the same first weights, stream and cuts."""
        stream_key, test_key, cuts_key = jax.random.split(key, 3)
        stream = make_stream(stream_key, config.num_episodes, length, config.batch)
        test = make_stream(test_key, config.test_episodes, length, config.batch)
        trained, loss = jax.vmap(lambda rate, lag: train_one(rate, lag, params, stream, cuts_key))(
            rates, lags
        )
        return loss, jax.vmap(lambda one: accuracy(one, test, length))(trained)

    rates, each = np.array(config.learning_rates), np.ones(len(counted))
    tuning_runs, seeds = runs[: config.num_tuning_runs], runs[config.num_tuning_runs :]
    losses_of = [
        [train_rows(rate * each, counted, *run)[0] for rate in rates] for run in tuning_runs
    ]
    tuning = np.mean(losses_of, axis=0)
    best = rates[np.argmin(np.where(np.isnan(tuning), np.inf, tuning), axis=0)]
    tested = np.stack([np.asarray(train_rows(best, counted, *run)[1]) for run in seeds])
    return Result(arm, tuning, best, tested)


def accuracy(params: Any, stream: artbp.Stream, episode_length: int) -> jax.Array:
    """[episode_length], the share of right answers at each lag."""
    carry = artbp.cells.lstm.initial_carry(params["cell"], stream.xs.shape[1])
    _, ys = artbp.unroll(artbp.cells.lstm, params["cell"], carry, stream.xs, resets=stream.resets)
    right = jnp.argmax(losses.readout(params, ys), axis=-1) == stream.targets
    return jnp.mean(right.reshape(-1, episode_length, right.shape[1]), axis=(0, 2))


def train_all(config: Any, arms: Sequence[Arm], say: Callable[[str], None]) -> list[Result]:
    """Trains every arm, `num_threads` at a time.

    Raises:
        TrainingInterruptedError: Ctrl-C.
    """

    # Here and not in the threads: in JAX 0.10, two programs at the same time that each make a batch
    # of orthogonal matrices can wait for each other for ever on two cores.
    runs = jax.block_until_ready(make_runs(config))

    def train(arm: Arm) -> Result:
        result = train_arm(config, arm, runs)
        last = config.lags[-1]
        say(
            f"{arm.label}: accuracy at lag {last} {result.accuracy[:, 0, last].mean():.1%}, "
            f"trained on it alone {result.own_lag(config.lags)[:, -1].mean():.1%}"
        )
        return result

    # ARTBP's random segments take the longest: first.
    order = sorted(arms, key=lambda arm: arm.kind != "artbp")
    trained = dict(zip(order, in_threads(train, order, config.num_threads), strict=True))
    return [trained[arm] for arm in arms]
