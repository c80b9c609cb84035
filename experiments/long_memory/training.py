"""Trains each arm on copy memory, and tests what it recalls."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common.report import Row
from experiments.common.study import Say
from experiments.common.tuning import choose_rate, run_keys, split
from experiments.common.whole_run import train_whole
from experiments.long_memory.config import Arm, arm_of, task_of
from experiments.tasks import losses
from experiments.tasks.copy_memory import NUM_RECALLED


def make_streams(config: Any, run: int) -> tuple[artbp.Stream, artbp.Stream]:
    """Returns the data to train and to test the run of this number on, whole sequences."""
    task = task_of(config)
    length = task.sequence_length or 0
    steps = (config.num_sequences + config.test_sequences) * length
    stream = next(task.chunks(config.seed + run, config.batch, steps)).stream
    parts = slice(0, config.num_sequences * length), slice(config.num_sequences * length, steps)
    train, test = (
        artbp.Stream(stream.xs[part], stream.targets[part], resets=stream.resets[part])
        for part in parts
    )
    return train, test


def init(arm: Arm, config: Any, rng_key: jax.Array) -> Any:
    """Returns the first parameters."""
    task = task_of(config)
    cell_key, readout_key = jax.random.split(rng_key)
    return {
        "cell": arm.cell.init(cell_key, task.input_size, config.hidden_size),
        "readout": losses.init_readout(readout_key, arm.output_size, task.output_size),
    }


def train(arm: Arm, config: Any, rate: Any, run: Any) -> tuple[jax.Array, jax.Array]:
    """Trains once.

    Args:
        rate: of Adam.
        run: (key, the stream to train on, the stream to test on).

    Returns:
        (the loss of each point in nats per step; the share of symbols that are recalled in the
        test).
    """
    rng_key, stream, test = run
    params = init(arm, config, rng_key)
    cell = arm.cell.with_params(lambda params: params["cell"])
    carry = arm.cell.initial_carry(params["cell"], config.batch)
    normalizer = float(arm.length * config.batch)
    outcome = train_whole(
        artbp.tbptt(
            cell, losses.cross_entropy, truncation_length=arm.length, normalizer=normalizer
        ),
        lambda rate: optax.chain(optax.clip_by_global_norm(config.max_norm), optax.adam(rate)),
        rate,
        params,
        carry,
        stream,
        rng_key,
        edges=np.linspace(0, stream.num_steps, config.num_points + 1).astype(int),
    )
    _, ys = artbp.unroll(cell, outcome.params, carry, test.xs, resets=test.resets)
    return outcome.loss, recall(config, losses.readout(outcome.params, ys), test.targets)


def recall(config: Any, logits: jax.Array, targets: Any) -> jax.Array:
    """Returns the share of right answers in the ten last steps of the sequences."""
    is_right = jnp.argmax(logits, axis=-1) == targets
    length = task_of(config).sequence_length
    return jnp.mean(is_right.reshape(-1, length, is_right.shape[1])[:, -NUM_RECALLED:])


def run(config: Any, say: Say) -> list[Row]:
    """Returns a row for each arm: its rate, curves and recall."""
    keys = run_keys(config)
    data = [(key, *make_streams(config, i)) for i, key in enumerate(keys)]
    tuning, reported = split(data, config)
    rates, rows = config.learning_rates, []
    for name in config.arms:
        arm = arm_of(name, config)
        one = jax.jit(lambda rate, run, arm=arm: train(arm, config, rate, run))
        tuned = np.array([[one(rate, run)[0][-1] for rate in rates] for run in tuning])
        choice = choose_rate(rates, tuned)
        found = [one(choice.rate, run) for run in reported]
        row = {
            "arm": name,
            "label": arm.label,
            "color": arm.color,
            "learning_rate": choice.rate,
            "rate_at_edge": choice.at_edge,
            "tuning_loss": list(choice.scores),
            "losses": [np.asarray(loss, np.float64).tolist() for loss, _ in found],
            "recall": [float(recall) for _, recall in found],
        }
        rows.append(row)
        say(f"{arm.label}: recalls {', '.join(f'{recall:.1%}' for recall in row['recall'])}")
    return rows
