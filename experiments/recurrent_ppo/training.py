"""Trains the policy: rollouts, and updates from one pass of an estimator over the rollout.

    for each iteration:
        rollout, carry at its first step = T steps of every row with the present params
        advantages, from the values of the rollout
        for each epoch, for each minibatch of rows:
            gradient = the estimates of one pass over the rollout, summed
            params   = a step of Adam, after clipping by norm

All arms see the same number of steps and make the same number of updates. Only the gradient through
time differs.

Every pass begins with the carry that was recorded at the first step of the rollout, and runs the
network again with the present params. This carry is that of the params that collected the rollout.
From the second update on, the params have changed, and the carry has not. It has no gradient: an
episode that goes on from the rollout before gets no gradient from it, with full BPTT either. Where
an episode begins, the carry is reset to zeros.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from artbp.cells import gru
from experiments.common import tuning
from experiments.common.arms import Arm
from experiments.common.devices import OverRuns
from experiments.common.pool import made_alone
from experiments.common.tuning import Choice, choose_rate
from experiments.recurrent_ppo import maze, ppo

CELL = gru.with_params(lambda params: params["cell"])


class Curves(NamedTuple):
    """Sums over the rollout of each iteration, `[..., iterations]`.

    Attributes:
        reward: summed over steps and rows.
        num_ends: the episodes that ended.
        num_right: those of them with the right turn.

    reward and num_right are NaN from where the params are.
    """

    reward: Any
    num_ends: Any
    num_right: Any


class Result(NamedTuple):
    """An arm: the choice of its learning rate, and the curves `[seeds, iterations]`."""

    arm: Arm
    choice: Choice
    curves: Curves


class Rollout(NamedTuple):
    """What is recorded of each step, `[T, B]`."""

    symbol: jax.Array
    is_first: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    outcome: maze.Outcome


def init_params(rng_key: jax.Array, hidden_size: int) -> dict[str, Any]:
    """Draws the params of the network: a GRU on the symbols, and the two heads."""
    cell_key, heads_key = jax.random.split(rng_key)
    cell = gru.init(cell_key, maze.NUM_SYMBOLS, hidden_size)
    return {"cell": cell, **ppo.init_heads(heads_key, hidden_size, maze.NUM_ACTIONS)}


def run_network(params: Any, carry: jax.Array, at: maze.Maze) -> tuple[jax.Array, Any]:
    """Runs one step: (carry, (log probabilities, value)). A new episode begins with zeros."""
    carry = jnp.where(at.is_first[:, None], 0, carry)
    carry, y = CELL(params, carry, at.symbol)
    return carry, ppo.heads(params, y)


def collect(
    config: Any, params: Any, carry: jax.Array, at: maze.Maze, rng_key: jax.Array
) -> tuple[jax.Array, maze.Maze, Rollout]:
    """Acts for `rollout_length` steps; returns the carry and the maze at the step after them."""

    def step(loop: Any, key: jax.Array) -> Any:
        carry, at = loop
        action_key, maze_key = jax.random.split(key)
        carry, (log_probs, value) = run_network(params, carry, at)
        action = jax.random.categorical(action_key, log_probs)
        after, outcome = maze.step(maze_key, at, action, config.corridor_length)
        log_prob = ppo.log_prob_of(log_probs, action)
        seen = Rollout(at.symbol, at.is_first, action, log_prob, value, outcome)
        return (carry, after), seen

    keys = jax.random.split(rng_key, config.rollout_length)
    (carry, at), rollout = jax.lax.scan(step, (carry, at), keys)
    return carry, at, rollout


def make_stream(config: Any, rollout: Rollout, last_value: jax.Array) -> artbp.Stream:
    """Makes the stream of a rollout, with advantages normalised over all its steps."""
    advantage = ppo.advantages(
        rollout.outcome.reward,
        rollout.outcome.is_end,
        rollout.value,
        last_value,
        config.discount,
        config.gae_lambda,
    )
    normalised = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)
    returns = advantage + rollout.value
    target = ppo.Target(rollout.action, rollout.log_prob, normalised, returns)
    return artbp.Stream(rollout.symbol, target, resets=rollout.is_first)


def make_estimator(config: Any, arm: Arm) -> artbp.GradientEstimator:
    """Makes the estimator of the mean loss of a step, over a minibatch of rows."""
    rows = config.num_rows // config.num_minibatches
    options: dict[str, Any] = {"normalizer": float(rows * config.rollout_length)}
    if arm.look_back is not None:  # no more than there are windows
        options["stored_carries"] = math.ceil(config.rollout_length / arm.length)
    else:
        # Small buffers for random segments: `run_pass` under vmap copies them after each segment.
        length = config.rollout_length
        block_size = min(16, length) if arm.claims.random else length
        options |= {"policy": "dynamic", "block_size": block_size}
    loss_fn = ppo.make_loss(config.clip, config.value_weight, config.entropy_weight)
    return arm.build(CELL, loss_fn, **options)


def first_params(config: Any, rng_key: jax.Array) -> Any:
    """Makes the params that the run with this key begins with."""
    return init_params(_keys(rng_key)[0], config.hidden_size)


def _keys(rng_key: jax.Array) -> jax.Array:
    """The keys of a run: of its first params, of its mazes, and of the rest."""
    return jax.random.split(rng_key, 3)


def train(
    config: Any, estimator: artbp.GradientEstimator, params: Any, rate: Any, rng_key: jax.Array
) -> Curves:
    """Trains one run from its `first_params`; may be vmapped over these, `rate` and `rng_key`."""
    _, maze_key, run_key = _keys(rng_key)
    optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(rate, eps=1e-5))
    zeros = jnp.zeros((config.num_rows, config.hidden_size))

    def iteration(loop: Any, key: jax.Array) -> tuple[Any, Curves]:
        learner, carry, at = loop
        rollout_key, update_key = jax.random.split(key)
        new_carry, new_at, rollout = collect(config, learner[0], carry, at, rollout_key)
        _, (_, last_value) = run_network(learner[0], new_carry, new_at)
        stream = make_stream(config, rollout, last_value)

        def update(learner: Any, part: Any) -> tuple[Any, None]:
            (params, opt_state), (rows, key) = learner, part
            state = estimator.init(params, carry[rows], rng_key=key, initial_carry=zeros[rows])
            minibatch = jax.tree.map(lambda leaf: leaf[:, rows], stream)
            grads, _ = artbp.run_pass(estimator, params, state, minibatch)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        def epoch(learner: Any, key: jax.Array) -> tuple[Any, None]:
            order_key, *keys = jax.random.split(key, 1 + config.num_minibatches)
            order = jax.random.permutation(order_key, config.num_rows)
            parts = order.reshape(config.num_minibatches, -1), jnp.stack(keys)
            return jax.lax.scan(update, learner, parts)

        learner, _ = jax.lax.scan(epoch, learner, jax.random.split(update_key, config.num_epochs))
        # A policy of NaN always takes the first action, which may even be rewarded.
        finite = jnp.all(jnp.isfinite(rollout.value))
        curves = Curves(*map(jnp.sum, rollout.outcome))
        reward, right = (jnp.where(finite, x, jnp.nan) for x in (curves.reward, curves.num_right))
        return (learner, new_carry, new_at), curves._replace(reward=reward, num_right=right)

    start = (params, optimizer.init(params)), zeros, maze.begin(maze_key, config.num_rows)
    return jax.lax.scan(iteration, start, jax.random.split(run_key, config.num_iterations))[1]


def mean_return(curves: Curves, part: slice = slice(None)) -> np.ndarray:
    """Returns the reward for each episode that ended, over the iterations in `part`, [...].

    Rewards of episodes that have not ended count too; without an end the return is −∞.
    """
    reward, ends = (np.asarray(x)[..., part].sum(-1) for x in (curves.reward, curves.num_ends))
    return np.where(ends, reward / np.maximum(ends, 1), -np.inf)


def share_right(curves: Curves, part: slice = slice(None)) -> np.ndarray:
    """Returns the share of right turns, over the iterations in `part`, [...]; 0 without a turn."""
    right, ends = (np.asarray(x)[..., part].sum(-1) for x in (curves.num_right, curves.num_ends))
    return right / np.maximum(ends, 1)


def last_quarter(config: Any) -> slice:
    """Returns the iterations that the result of a run is taken over."""
    return slice(3 * config.num_iterations // 4, None)


def train_arm(config: Any, arm: Arm, train_runs: Callable | None = None) -> Result:
    """Chooses the learning rate on the tuning runs, and trains the others with it."""
    estimator = make_estimator(config, arm)
    train_runs = train_runs or OverRuns(
        jax.vmap(functools.partial(train, config, estimator)), in_axes=(0, 0, 0)
    )
    make_params = jax.jit(jax.vmap(functools.partial(first_params, config)))
    keys, reported = tuning.split(tuning.run_keys(config), config)
    rates = np.array(config.learning_rates, np.float32)
    # All rates of all tuning runs in one program, [runs · rates].
    number = len(rates)
    of_tuning = jnp.repeat(keys, number)
    params = made_alone(make_params, of_tuning)
    found = train_runs(params, np.tile(rates, len(keys)), of_tuning)
    scores = -mean_return(found, last_quarter(config)).reshape(len(keys), number)
    choice = choose_rate(config.learning_rates, scores)
    params = made_alone(make_params, reported)
    curves = train_runs(params, np.full(len(reported), choice.rate, np.float32), reported)
    return Result(arm, choice, jax.tree.map(np.asarray, curves))
