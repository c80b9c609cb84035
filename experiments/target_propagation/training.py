"""Trains each arm at equal work, and on as many sequences as full BPTT, and tests it.

    step      0      1    ...  lag      lag + 1  ...
    input     b_0    b_1  ...  b_lag    ...
    target    none   ...       b_0      b_1      ...

The bits are uniform and independent. Each sequence begins with a reset.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from artbp.cells import gru
from experiments.common.arms import Arm, Size, bptt
from experiments.common.report import Row
from experiments.common.study import Say
from experiments.common.tuning import choose_rate, run_keys, split
from experiments.common.whole_run import train_whole
from experiments.target_propagation.config import chosen_arms
from experiments.tasks import losses

CELL = gru.with_params(lambda params: params["cell"])
NUM_SYMBOLS = 2


def make_stream(rng_key: jax.Array, num_sequences: int, config: Any) -> artbp.Stream:
    """Returns sequences one after the other, `[T, batch]`."""
    length = config.sequence_length
    step = jnp.tile(jnp.arange(length), num_sequences)
    shape = (num_sequences * length, config.batch)
    bits = jax.random.bernoulli(rng_key, shape=shape).astype(jnp.int32)
    targets = jnp.roll(bits, config.lag, axis=0)
    return artbp.Stream(bits, targets, resets=step == 0, mask=step >= config.lag)


def affordable_sequences(arm: Arm, config: Any) -> int:
    """Returns the sequences of a training with the work of full BPTT on `num_sequences`."""
    size = Size(0, 0)  # no arm's cost depends on it
    share = bptt().evaluations(size) / arm.evaluations(size)
    return round(share * config.num_sequences)


def train(
    arm: Arm, num_sequences: int, config: Any, rate: Any, penalty: Any, rng_key: jax.Array
) -> jax.Array:
    """Trains once, and returns the loss on new sequences in nats per bit."""
    cell_key, readout_key, run_key, stream_key, test_key = jax.random.split(rng_key, 5)
    params = {
        "cell": gru.init(cell_key, NUM_SYMBOLS, config.hidden_size),
        "readout": losses.init_readout(readout_key, config.hidden_size, NUM_SYMBOLS),
    }
    options = {"penalty": penalty} if arm.name == "target_propagation" else {"policy": "dynamic"}
    normalizer = float(arm.length * config.batch)
    estimator = arm.build(CELL, losses.cross_entropy, normalizer=normalizer, **options)
    stream = make_stream(stream_key, num_sequences, config)
    edges = np.array([0, stream.num_steps])
    carry = gru.initial_carry(params["cell"], config.batch)
    run = train_whole(estimator, optax.adam, rate, params, carry, stream, run_key, edges=edges)
    test = make_stream(test_key, config.test_sequences, config)
    _, ys = artbp.unroll(CELL, run.params, carry, test.xs, resets=test.resets)
    found = losses.cross_entropy(run.params, ys, test.targets)
    return jnp.mean(found, where=test.mask[:, None])


def run_arm(arm: Arm, config: Any) -> Row:
    """Returns the row of an arm: learning rate and λ by the tuning runs, losses of each seed."""
    tuning, reported = split(run_keys(config), config)
    of_penalty = arm.name == "target_propagation"
    penalties = config.penalties if of_penalty else (1.0,)
    grid = [(rate, penalty) for penalty in penalties for rate in config.learning_rates]
    affordable = affordable_sequences(arm, config)
    one = jax.jit(functools.partial(train, arm, affordable, config))
    found = np.array([[float(one(*point, key)) for point in grid] for key in tuning])
    index = choose_rate(range(len(grid)), found).index
    rate, penalty = grid[index]
    equal_work = [float(one(rate, penalty, key)) for key in reported]
    equal_data = equal_work
    if affordable != config.num_sequences:
        more = jax.jit(functools.partial(train, arm, config.num_sequences, config))
        equal_data = [float(more(rate, penalty, key)) for key in reported]
    return {
        "arm": arm.text,
        "label": arm.label,
        "evaluations": arm.evaluations(Size(0, 0)),
        "learning_rate": rate,
        "rate_at_edge": rate in (min(config.learning_rates), max(config.learning_rates)),
        "penalty": penalty if of_penalty else None,
        "penalty_at_edge": penalty in (min(penalties), max(penalties)),
        "num_sequences": affordable,
        "tuning_loss": found.mean(axis=0).tolist(),
        "equal_work": equal_work,
        "equal_data": equal_data,
    }


def run(config: Any, say: Say) -> list[Row]:
    """Returns a row for each arm."""
    rows = []
    for arm in chosen_arms(config):
        row = run_arm(arm, config)
        rows.append(row)
        say(f"{arm.label}: {np.median(row['equal_work']):.3f} nats per bit at equal work")
    return rows
