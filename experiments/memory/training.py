"""Makes the stream, trains an arm on it, and tests its accuracy at every lag.

    step in the episode    0      1   2   3  ...
    input                  item   distractor at each step
    target                 the item, at every step

Items are 0 to 3 and distractors 4 to 7, uniform and independent. An episode begins with the
initial carry, in all rows at the same step. The lag of a step is its number in the episode: how
long ago the item was shown. Without memory the best accuracy is 1/4.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from artbp.cells import lstm
from experiments.common import tuning
from experiments.common.arms import Arm
from experiments.common.devices import OverRuns
from experiments.common.divergence import all_finite
from experiments.common.tuning import Choice, choose_rate
from experiments.common.whole_run import train_whole
from experiments.tasks import losses

NUM_ITEMS, NUM_SYMBOLS = 4, 8
CHANCE = 1 / NUM_ITEMS
CELL = lstm.with_params(lambda params: params["cell"])


class Result(NamedTuple):
    """An arm, trained on the loss at every lag (training 0) and at each of `config.lags` alone.

    Attributes:
        choices: [trainings], the learning rate of each, by the last quarter of the tuning runs.
        accuracy: [seeds, trainings, lags], on test episodes, at every lag 0, ..., length − 1.
    """

    arm: Arm
    choices: list[Choice]
    accuracy: np.ndarray


def make_stream(
    rng_key: jax.Array, num_episodes: int, episode_length: int, batch: int
) -> artbp.Stream:
    """Returns xs, targets and resets, [T, batch] each, T = num_episodes · episode_length."""
    item_key, distractor_key = jax.random.split(rng_key)
    shape = (num_episodes, episode_length, batch)
    items = jax.random.randint(item_key, (num_episodes, 1, batch), 0, NUM_ITEMS)
    distractors = jax.random.randint(distractor_key, shape, NUM_ITEMS, NUM_SYMBOLS)
    first = jnp.arange(episode_length)[None, :, None] == 0
    arrays = jnp.where(first, items, distractors), items, first
    xs, targets, resets = (jnp.broadcast_to(x, shape).reshape(-1, batch) for x in arrays)
    return artbp.Stream(xs, targets, resets=resets)


def counted_lags(episode_length: int, lags: tuple[int, ...]) -> np.ndarray:
    """Returns where the loss counts in each training, bool [1 + len(lags), episode_length].

    Row 0: at every lag but 0. Then one row for each of `lags`, at that lag alone.
    """
    steps = np.arange(episode_length)
    return np.stack([steps > 0, *(steps == lag for lag in lags)])


def make_estimator(arm: Arm, config: Any) -> artbp.GradientEstimator:
    """Makes the estimator; the scale of a gradient makes no difference to Adam."""
    normalizer = float(arm.length * config.batch)
    return arm.build(CELL, losses.cross_entropy, normalizer=normalizer, policy="dynamic")


def make_runs(config: Any) -> list[tuple[Any, Any]]:
    """Returns (initial weights, key) of the runs to tune on, and then of each seed."""
    runs = []
    for key in tuning.run_keys(config):
        cell_key, readout_key, run_key = jax.random.split(key, 3)
        params = {
            "cell": lstm.init(cell_key, NUM_SYMBOLS, config.hidden_size),
            "readout": losses.init_readout(readout_key, config.hidden_size, NUM_ITEMS),
        }
        runs.append((params, run_key))
    return runs


def cost(config: Any) -> list[str]:
    """Returns the lines of --dry_run about parameters and steps."""
    params, _ = jax.eval_shape(lambda: make_runs(config))[0]
    number = sum(leaf.size for leaf in jax.tree.leaves(params))
    of_arm = config.num_tuning_runs * len(config.learning_rates) + config.num_seeds
    trainings = len(config.arms) * (1 + len(config.lags)) * of_arm
    steps = config.num_episodes * config.episode_length
    return [
        f"Parameters: {number:,}.",
        f"Steps: {trainings:,} trainings of {steps:,} time steps of {config.batch} rows.",
    ]


def train_arm(config: Any, arm: Arm, runs: Sequence[tuple[Any, Any]]) -> Result:
    """Tunes the learning rate of each training on the first runs, and trains the others with it."""
    length, num_episodes = config.episode_length, config.num_episodes
    counted = counted_lags(length, tuple(config.lags))
    edges = np.array([0, 3 * num_episodes // 4 * length, num_episodes * length])

    def train_each(rates: Any, counted: Any, params: Any, key: Any) -> tuple[Any, Any]:
        """Returns losses and accuracies of the trainings, which share weights, stream and cuts."""
        stream_key, test_key, cuts_key = jax.random.split(key, 3)
        stream = make_stream(stream_key, num_episodes, length, config.batch)
        test = make_stream(test_key, config.test_episodes, length, config.batch)
        carry = lstm.initial_carry(params["cell"], config.batch)
        estimator = make_estimator(arm, config)

        def train_one(rate: Any, lags: Any) -> tuple[Any, Any]:
            mask = jnp.broadcast_to(jnp.tile(lags, num_episodes)[:, None], stream.xs.shape)
            counted = artbp.Stream(stream.xs, stream.targets, resets=stream.resets, mask=mask)
            given = params, carry, counted, cuts_key
            run = train_whole(estimator, arm.optimizer, rate, *given, edges=edges)
            return run.loss[-1], run.params

        loss, trained = jax.vmap(train_one)(rates, counted)
        return loss, jax.vmap(lambda one: accuracy(one, test, length))(trained)

    train_cases = OverRuns(train_each, in_axes=(0, 0, None, None))
    rates, each = config.learning_rates, np.ones(len(counted))
    tuning_runs, seeds = tuning.split(runs, config)
    # [runs, rates, trainings]
    found = np.array(
        [[train_cases(rate * each, counted, *run)[0] for rate in rates] for run in tuning_runs]
    )
    choices = [choose_rate(rates, found[..., i]) for i in range(len(counted))]
    best = np.array([choice.rate for choice in choices])
    tested = np.stack([np.asarray(train_cases(best, counted, *run)[1]) for run in seeds])
    return Result(arm, choices, tested)


def accuracy(params: Any, stream: artbp.Stream, episode_length: int) -> jax.Array:
    """Returns the share of right answers at each lag, [episode_length]; NaN for params with NaN."""
    carry = lstm.initial_carry(params["cell"], stream.xs.shape[1])
    _, ys = artbp.unroll(lstm, params["cell"], carry, stream.xs, resets=stream.resets)
    right = jnp.argmax(losses.readout(params, ys), axis=-1) == stream.targets
    found = jnp.mean(right.reshape(-1, episode_length, right.shape[1]), axis=(0, 2))
    # The answer of a network of NaN is the first item, which is right by chance.
    return jnp.where(all_finite(params), found, jnp.nan)
