"""A run of the training loop that takes a second: an LSTM on generated text.

Imported by the tests; as a script it is the process that they kill:

    python tiny_run.py WORKDIR --event os.rename --path-part orbax-checkpoint-tmp --count 2

starts or resumes a run, and sends itself SIGKILL at the second such audit event of Python whose
first argument contains that.
"""

import argparse
import functools
import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from artbp.diagnostics import shadow
from experiments.common import processes
from experiments.common.checkpoints import Checkpoints
from experiments.common.loop import train
from experiments.common.loop_options import LoopOptions
from experiments.common.metrics import MetricsWriter, read_metrics
from experiments.common.optimizers import make_optimizer
from experiments.common.workdir import open_workdir

SYMBOLS, HIDDEN, BATCH, STEPS = 5, 6, 3, 120


def cell(params, carry, x):
    return artbp.cells.lstm(params["lstm"], carry, x)


def loss_fn(params, y, target):
    log_probs = jax.nn.log_softmax(y @ params["readout"])
    return -jnp.take_along_axis(log_probs, target[..., None], axis=-1)[..., 0]


def make_stream():
    """Symbols that repeat the one before last, with noise."""
    rng = np.random.default_rng(0)
    text = rng.integers(SYMBOLS, size=(STEPS + 1, BATCH))
    for t in range(2, STEPS + 1):
        text[t] = np.where(rng.random(BATCH) < 0.8, text[t - 2], text[t])
    return artbp.Stream(jnp.asarray(text[:-1], jnp.int32), jnp.asarray(text[1:], jnp.int32))


def make_params():
    lstm_key, readout_key = jax.random.split(jax.random.key(1))
    return {
        "lstm": artbp.cells.lstm.init(lstm_key, SYMBOLS, HIDDEN),
        "readout": jax.random.normal(readout_key, (HIDDEN, SYMBOLS)),
    }


@functools.cache
def make_estimator(policy=None):
    law = artbp.truncation.polynomial(5.0, 4.0)
    return artbp.artbp(cell, loss_fn, law, normalizer=5.0 * BATCH, policy=policy, block_size=4)


@functools.cache
def default_optimizer():
    return make_optimizer("adam", learning_rate=1e-2, clip_norm=1.0)


@jax.jit
def mean_loss(params, stream):
    carry = artbp.cells.lstm.initial_carry(params["lstm"], BATCH)
    _, ys = artbp.unroll(cell, params, carry, stream.xs)
    return jnp.mean(loss_fn(params, ys, stream.targets))


@functools.cache
def make_measure():
    law = artbp.truncation.polynomial(5.0, 4.0)
    watch = jax.jit(shadow(cell, loss_fn, window_length=6, truncation_lengths=(2,), law=law))

    def measure(params, state, stream, updates):
        return watch(params, state, stream, jax.random.fold_in(jax.random.key(3), updates))

    return measure


def evaluate(params):
    sys.audit("tiny_run.evaluate", "params")
    loss = float(mean_loss(params, make_stream()))
    return {"valid_loss": loss, "negative_loss": -loss}


def run(
    path,
    *,
    measured=True,
    resume=False,
    policy=None,
    optimizer=None,
    params=None,
    stream=None,
    **option_changes,
):
    params = make_params() if params is None else params
    options = {
        "num_epochs": 2,
        "segments_per_chunk": 5,
        "measure_every": 7,
        "best_metric": "valid_loss",
        "checkpoint_every_seconds": 0.0,
        "progress_bar": False,
    }
    return train(
        make_estimator(policy),
        optimizer or default_optimizer(),
        make_stream() if stream is None else stream,
        params,
        artbp.cells.lstm.initial_carry(params["lstm"], BATCH),
        rng_key=jax.random.key(2),
        workdir=processes.from_first(lambda: open_workdir(path, {"seed": 2}, resume=resume)),
        options=LoopOptions(**options | option_changes),
        evaluate=evaluate,
        measure=make_measure() if measured else None,
    )


def outcome(path, result):
    """Everything that must not depend on interruptions: parameters, rows without their times."""
    with Checkpoints(Path(path) / "checkpoints", read_only=True) as checkpoints:
        best_params, record = checkpoints.restore_best(result.params)
    rows = [*read_metrics(Path(path) / "metrics.jsonl"), record]
    for row in rows:
        row.pop("time", None)
    trees = {"params": result.params, "best": best_params}
    arrays = {
        jax.tree_util.keystr(where): np.asarray(leaf)
        for where, leaf in jax.tree_util.tree_leaves_with_path(trees)
    }
    return arrays, rows


def assert_same_outcome(actual, expected):
    actual_arrays, actual_rows = actual
    expected_arrays, expected_rows = expected
    assert actual_rows == expected_rows
    assert actual_arrays.keys() == expected_arrays.keys()
    for name, array in expected_arrays.items():
        np.testing.assert_array_equal(actual_arrays[name], array, err_msg=name)


def interrupt_after_rows(patch, count, signal_number):
    """Sends the signal once that many rows have been written in this session."""
    written = 0
    write = MetricsWriter.write

    def write_and_interrupt(self, row):
        nonlocal written
        write(self, row)
        written += 1
        if written == count:
            signal.raise_signal(signal_number)

    patch.setattr(MetricsWriter, "write", write_and_interrupt)


def kill_at(event_name, path_part, count):
    """SIGKILL to this process at the count-th such event: no handler, no clean-up."""
    seen = 0

    def hook(event, args):
        nonlocal seen
        if event == event_name and args and path_part in str(args[0]):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("--event", required=True)
    parser.add_argument("--path-part", required=True)
    parser.add_argument("--count", type=int, required=True)
    arguments = parser.parse_args()
    kill_at(arguments.event, arguments.path_part, arguments.count)
    run(arguments.workdir, resume=True)
