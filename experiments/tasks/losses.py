"""Defines the losses of the tasks, with a linear readout.

core = artbp.cells.gru
params = {
    "cell": core.init(cell_key, task.input_size, hidden_size),
    "readout": losses.init_readout(readout_key, hidden_size, task.output_size),
}
cell = core.with_params(lambda params: params["cell"])
estimator = artbp.tbptt(cell, losses.loss_fn(task), truncation_length=20)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.tasks.base import Task


def init_readout(rng_key: jax.Array, hidden_size: int, output_size: int) -> dict[str, jax.Array]:
    """Draws {"kernel": [hidden_size, output_size], "bias": [output_size]}; the bias is zero."""
    kernel = jax.nn.initializers.lecun_normal()(rng_key, (hidden_size, output_size), jnp.float32)
    return {"kernel": kernel, "bias": jnp.zeros((output_size,), jnp.float32)}


def readout(params: Any, y: jax.Array) -> jax.Array:
    """Returns y · kernel + bias, [B, output_size]: logits or predictions."""
    return y @ params["readout"]["kernel"] + params["readout"]["bias"]


def cross_entropy(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
    """Returns −log softmax(readout)[target] of one step in nats, [B]; target is int32 [B]."""
    return optax.softmax_cross_entropy_with_integer_labels(readout(params, y), target)


def squared_error(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
    """Returns ‖readout − target‖² of one step, [B], without a factor ½."""
    return jnp.sum(jnp.square(readout(params, y) - target), axis=-1)


def loss_fn(task: Task) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
    """Returns the loss of a task, `loss_fn(params, y, target) -> [B]`."""
    return {"cross entropy": cross_entropy, "squared error": squared_error}[task.loss]
