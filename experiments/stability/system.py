"""The network, the sequences, the loss of whole sequences, and clipping."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common.arms import Arm
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
    params = core.init(cell_key, 1, hidden_size, dtype=dtype)
    readout = losses.init_readout(readout_key, hidden_size, 1)
    readout = jax.tree.map(lambda leaf: leaf.astype(dtype), readout)
    return with_radius({"cell": params, "readout": readout}, spectral_radius)


def with_radius(params: Any, factor: Any) -> Any:
    """The params with `factor` times their spectral radius."""
    cell = params["cell"]
    return params | {"cell": cell | {"recurrent": factor * cell["recurrent"]}}


def sequences(config: Any, seed: int, number: int = 1, num_rows: int | None = None) -> artbp.Stream:
    """Sequences one after the other, each begun with the initial carry: [S · length, B, 1].

    Training takes the even seeds.
    """
    num_steps = number * config.sequence_length
    chunks = mackey_glass(config.horizon).chunks(seed, num_rows or config.num_rows, num_steps)
    given = next(chunks).stream
    xs, targets = (np.asarray(array, np.float64) for array in (given.xs, given.targets))
    return artbp.Stream(xs, targets, resets=np.arange(num_steps) % config.sequence_length == 0)


def mean_loss(params: Any, stream: artbp.Stream, gates: Any = None) -> jax.Array:
    """Mean loss per step and row of a stream, from the initial carry; gates as in artbp.unroll."""
    carry = core.initial_carry(params["cell"], jnp.shape(stream.xs)[1])
    _, ys = artbp.unroll(cell, params, carry, stream.xs, gates=gates, resets=stream.resets)
    return jnp.mean(jax.vmap(loss_fn, in_axes=(None, 0, 0))(params, ys, stream.targets))


def make_estimator(arm: Arm, config: Any) -> artbp.GradientEstimator:
    """Its gradient is that of the mean loss per step and row of an average segment."""
    return arm.build(cell, loss_fn, normalizer=float(arm.length * config.num_rows))


class Clip(NamedTuple):
    """Bounds on the gradient: on its global norm, and on the modulus of each entry; ∞ for none."""

    norm_bound: Any = np.inf
    value_bound: Any = np.inf


def clip(gradient: Any, bounds: Clip) -> Any:
    """The gradient with its entries clipped, and then scaled to a norm within the bound.

    The bounds may be traced, unlike those of optax.
    """
    norm, value = bounds
    gradient = jax.tree.map(lambda leaf: jnp.clip(leaf, -value, value), gradient)
    factor = jnp.minimum(1.0, norm / jnp.maximum(optax.tree.norm(gradient), 1e-300))
    return jax.tree.map(lambda leaf: factor * leaf, gradient)


def clipped_sgd(rate: Any, bounds: Clip) -> optax.GradientTransformation:
    """θ ← θ − rate · clip(gradient)."""
    return optax.chain(optax.stateless(lambda grads, _: clip(grads, bounds)), optax.sgd(rate))
