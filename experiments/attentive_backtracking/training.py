"""Trains the arms on copy memory, and measures how many symbols they recall.

All arms make one update per batch of sequences, also TBPTT, and so equally many. The loss counts
where symbols are recalled: a blank is learned without memory.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.attentive_backtracking.config import ARMS, Arm, make_cell
from experiments.common.divergence import all_finite
from experiments.common.pool import in_threads
from experiments.common.report import Row, median_and_range
from experiments.common.study import Say
from experiments.common.tuning import choose_rate, run_keys, split
from experiments.tasks import losses
from experiments.tasks.copy_memory import BLANK, DELIMITER, NUM_SYMBOLS


def draw(
    rng_key: jax.Array, batch: int, lag: int, num_recalled: int
) -> tuple[jax.Array, jax.Array]:
    """Draws sequences of `experiments.tasks.copy_memory`.

    Returns:
        (inputs int32 [lag + 2 num_recalled, batch], the symbols int32 [num_recalled, batch]).
    """
    symbols = jax.random.randint(rng_key, (num_recalled, batch), 0, NUM_SYMBOLS, jnp.int32)
    xs = jnp.full((lag + 2 * num_recalled, batch), BLANK, jnp.int32)
    xs = xs.at[:num_recalled].set(symbols).at[lag + num_recalled - 1].set(DELIMITER)
    return xs, symbols


def gates(arm: Arm, config: Any, num_steps: int) -> jax.Array | None:
    """Returns the factors on the gradient between steps: 0 after every `truncation_length`, else 1.

    None for full BPTT, and for SAB, whose cell cuts by itself.
    """
    if arm.has_memory or not arm.is_cut:
        return None
    is_cut = np.arange(1, num_steps + 1) % config.truncation_length == 0
    return jnp.asarray(~is_cut, jnp.float32)


def logits(arm: Arm, config: Any, num_recalled: int, params: Any, xs: jax.Array) -> jax.Array:
    """Returns the outputs at the steps of the recall, `[num_recalled, batch, NUM_SYMBOLS]`."""
    base = make_cell(arm, config, num_recalled)
    cell = base.with_params(lambda params: params["cell"])
    carry = base.initial_carry(params["cell"], xs.shape[1])
    _, ys = artbp.unroll(cell, params, carry, xs, gates=gates(arm, config, len(xs)))
    return losses.readout(params, ys[-num_recalled:])


def init(arm: Arm, config: Any, num_recalled: int, rng_key: jax.Array) -> Any:
    """Returns the first params of a run."""
    cell_key, readout_key, _, _ = jax.random.split(rng_key, 4)
    base, size = make_cell(arm, config, num_recalled), config.hidden_size
    return {
        "cell": base.init(cell_key, NUM_SYMBOLS + 2, size, forget_bias=config.forget_bias),
        "readout": losses.init_readout(readout_key, (1 + arm.has_memory) * size, NUM_SYMBOLS),
    }


def train(
    arm: Arm, config: Any, num_recalled: int, rate: Any, params: Any, rng_key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Trains once, from the first params of the same key.

    Returns:
        (mean losses of the parts of the training, nats per symbol, [num_points]; shares of right
        symbols in each, [num_points]; share of right symbols in the test, NaN for params that are
        not finite).
    """
    _, _, data_key, test_key = jax.random.split(rng_key, 4)
    optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(rate))
    outputs = functools.partial(logits, arm, config, num_recalled)

    def loss(params: Any, xs: jax.Array, symbols: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = outputs(params, xs)
        each = optax.softmax_cross_entropy_with_integer_labels(found, symbols)
        return jnp.mean(each), jnp.mean(jnp.argmax(found, axis=-1) == symbols)

    def update(state: Any, rng_key: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        params, opt_state = state
        data = draw(rng_key, config.batch, config.lag, num_recalled)
        measured, grads = jax.value_and_grad(loss, has_aux=True)(params, *data)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), measured

    keys = jax.random.split(data_key, config.num_updates)
    (params, _), measured = jax.lax.scan(update, (params, optimizer.init(params)), keys)
    history, shares = (part.reshape(config.num_points, -1).mean(axis=1) for part in measured)
    _, score = loss(params, *draw(test_key, config.test_sequences, config.lag, num_recalled))
    return history, shares, jnp.where(all_finite(params), score, jnp.nan)


def run_arm(arm: Arm, config: Any, num_recalled: int, starts: Sequence[Any]) -> Row:
    """Returns the row of an arm: its learning rate by the tuning runs, the scores of each seed.

    Args:
        starts: the first params of each run, then its key.
    """
    tuning, reported = split(starts, config)
    one = jax.jit(functools.partial(train, arm, config, num_recalled))
    last = -(-config.num_points // 4)
    tuned = [
        [float(jnp.mean(one(rate, *start)[0][-last:])) for rate in config.learning_rates]
        for start in tuning
    ]
    choice = choose_rate(config.learning_rates, tuned)
    runs = [jax.device_get(one(choice.rate, *start)) for start in reported]
    history, shares, scores = (
        np.stack(each).astype(np.float64) for each in zip(*runs, strict=True)
    )
    return {
        "num_recalled": num_recalled,
        "label": arm.label.format(config.truncation_length),
        "learning_rate": choice.rate,
        "rate_at_edge": choice.at_edge,
        "tuning_loss": list(choice.scores),
        "losses": np.round(history, 5).tolist(),
        "shares": np.round(shares, 5).tolist(),
        "accuracy": np.round(100 * scores, 3).tolist(),
    }


def recalled(shares: Sequence[float]) -> str:
    """Formats median, smallest and largest, in per cent. A run that diverged has the lowest."""
    return median_and_range(shares, worst=-np.inf)


def run(config: Any, say: Say) -> list[Row]:
    """Returns a row for each number of symbols and each arm."""
    jobs = [(number, name) for number in config.num_recalled for name in config.arms]

    keys = run_keys(config)
    # Here and not in the threads, see `in_threads`.
    starts = jax.block_until_ready(
        {
            (number, name): [(init(ARMS[name], config, number, key), key) for key in keys]
            for number, name in jobs
        }
    )

    def row(job: tuple[int, str]) -> Row:
        number, name = job
        return {"arm": name} | run_arm(ARMS[name], config, number, starts[job])

    def words(job: tuple[int, str], row: Row) -> str:
        return f"{job[0]} symbols, {row['label']}: {recalled(row['accuracy'])} %"

    def expense(job: tuple[int, str]) -> tuple[bool, int]:
        return ARMS[job[1]].has_memory, job[0]

    jobs_done = in_threads(row, jobs, config.num_threads, expense=expense, say=say, words=words)
    return list(jobs_done)
