"""The losses with a readout, and a whole model made of a task and a reference cell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import artbp
from experiments.tasks import TASKS, adding, brackets, losses

HIDDEN, BATCH = 5, 4


def _params_and_output(output_size):
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"readout": losses.init_readout(keys[0], HIDDEN, output_size)}
    params["readout"]["bias"] = jax.random.normal(keys[1], (output_size,))
    return params, jax.random.normal(keys[2], (BATCH, HIDDEN))


def test_losses_against_numpy():
    params, y = _params_and_output(3)
    outputs = np.asarray(y) @ np.asarray(params["readout"]["kernel"]) + params["readout"]["bias"]
    classes = np.array([0, 2, 1, 2], np.int32)
    chances = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    expected = -np.log(chances[np.arange(BATCH), classes])
    np.testing.assert_allclose(losses.cross_entropy(params, y, classes), expected, rtol=1e-5)
    targets = np.linspace(-1, 2, 3 * BATCH, dtype=np.float32).reshape(BATCH, 3)
    expected = ((outputs - targets) ** 2).sum(axis=1)
    np.testing.assert_allclose(losses.squared_error(params, y, targets), expected, rtol=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_symbols_are_scored_by_cross_entropy_and_floats_by_squared_error(name):
    task = TASKS[name]()
    targets = next(task.chunks(0, 2, 1)).stream.targets
    expected = losses.cross_entropy if targets.dtype == np.int32 else losses.squared_error
    assert losses.loss_fn(task) is expected


@pytest.mark.parametrize("task", [brackets(max_distance=2, min_distance=1), adding(length=4)])
def test_a_model_for_a_task(task):
    core = artbp.cells.rnn
    cell_key, readout_key, rng_key = jax.random.split(jax.random.key(0), 3)
    params = {
        "cell": core.init(cell_key, task.input_size, HIDDEN),
        "readout": losses.init_readout(readout_key, HIDDEN, task.output_size),
    }
    cell = core.with_params(lambda params: params["cell"])
    estimator = artbp.tbptt(cell, losses.loss_fn(task), truncation_length=12)
    stream = next(task.chunks(0, BATCH, 12)).stream
    carry = core.initial_carry(params["cell"], BATCH)
    state = estimator.init(params, carry, rng_key=rng_key)
    grads, _, info = jax.jit(estimator.estimate)(params, state, stream)
    assert info.num_losses == stream.mask.sum()
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert all(jnp.isfinite(leaf).all() and leaf.any() for leaf in jax.tree.leaves(grads))
