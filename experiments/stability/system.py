"""The network, the sequences, and the loss of whole sequences."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.tasks import losses, mackey_glass

core = artbp.cells.rnn
cell = core.with_params(lambda params: params["cell"])
loss_fn = losses.squared_error


def init(rng_key: jax.Array, hidden_size: int, spectral_radius: Any) -> Any:
    """Parameters whose recurrent matrix is `spectral_radius` times an orthogonal one.

    All its singular values and the moduli of all its eigenvalues are the spectral radius.
    """
    cell_key, readout_key = jax.random.split(rng_key)
    dtype = jnp.result_type(float)
    params = {
        "cell": core.init(cell_key, 1, hidden_size, dtype=dtype),
        "readout": losses.init_readout(readout_key, hidden_size, 1),
    }
    params["cell"]["recurrent"] *= spectral_radius
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def sequences(
    seed: int, num_rows: int, *, num_sequences: int, length: int, horizon: int
) -> artbp.Stream:
    """Sequences one after the other, each begun with the initial carry: [S · length, B, 1]."""
    chunk = next(mackey_glass(horizon).chunks(seed, num_rows, num_sequences * length))
    resets = np.arange(num_sequences * length) % length == 0
    xs, targets = (np.asarray(a, np.float64) for a in (chunk.stream.xs, chunk.stream.targets))
    return artbp.Stream(xs, targets, resets=resets)


def mean_loss(params: Any, stream: artbp.Stream, gates: Any = None) -> jax.Array:
    """Mean loss per step and row of a stream, from the initial carry; gates as in artbp.unroll."""
    carry = core.initial_carry(params["cell"], jnp.shape(stream.xs)[1])
    _, ys = artbp.unroll(cell, params, carry, stream.xs, gates=gates, resets=stream.resets)
    return jnp.mean(jax.vmap(loss_fn, in_axes=(None, 0, 0))(params, ys, stream.targets))


def global_norm(tree: Any) -> jax.Array:
    """√ Σ x²."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))
