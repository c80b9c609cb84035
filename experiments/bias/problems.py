"""The systems: cell, loss, params away from their optimum, and a stream of data."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common.whole_run import train_whole
from experiments.influence_balancing import system
from experiments.ptb.data import DATA_DIR_VARIABLE, batch_rows, penn_treebank
from experiments.ptb.generated import generated_corpus
from experiments.ptb.model import character_model

_SETTLING = 512  # steps before the stream, in which the carry becomes stationary
_DELAY = 12  # the random network is to say what came so many steps ago


class Problem(NamedTuple):
    """A system to measure.

    Attributes:
      label: for tables and figures.
      cell, loss_fn, params, carry: carry enters the stream.
      stream: num_windows windows.
      is_small: whether an online estimator can keep a Jacobian by the params.
    """

    label: str
    cell: Any
    loss_fn: Any
    params: Any
    carry: Any
    stream: artbp.Stream
    is_small: bool


def balancing(config: Any, rng_key: jax.Array) -> Problem:
    """Influence balancing with a noisy drive, at θ = 0.5, where the optimum is below 0."""
    num_steps = config.window_length * config.num_windows
    xs = 1 + 0.5 * jax.random.normal(rng_key, (_SETTLING + num_steps,))
    params = {"theta": jnp.asarray(0.5)}
    carry, _ = artbp.unroll(system.cell, params, system.initial_carry(), xs[:_SETTLING])
    stream = artbp.Stream(xs[_SETTLING:])
    label = "influence balancing\nTBPTT needs more than 100 steps"
    return Problem(label, system.cell, system.loss_fn, params, carry, stream, True)


def linear(memory: float) -> Callable[[Any, jax.Array], Problem]:
    """s ← ρ s + θ x with ρ = exp(−1/memory), to follow the same system with θ = 1, at θ = 0.5."""
    decay = float(np.exp(-1 / memory))

    def cell(params: Any, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        carry = decay * carry + params["theta"] * x
        return carry, carry

    def loss_fn(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
        del params
        return 0.5 * jnp.square(y - target)

    def make(config: Any, rng_key: jax.Array) -> Problem:
        num_steps = config.window_length * config.num_windows
        xs = jax.random.normal(rng_key, (_SETTLING + num_steps, config.rows))
        none = jnp.zeros((config.rows,))
        _, targets = artbp.unroll(cell, {"theta": jnp.asarray(1.0)}, none, xs)
        params = {"theta": jnp.asarray(0.5)}
        carry, _ = artbp.unroll(cell, params, none, xs[:_SETTLING])
        stream = artbp.Stream(xs[_SETTLING:], targets[_SETTLING:])
        label = f"linear system\nmemory {memory:g} steps"
        return Problem(label, cell, loss_fn, params, carry, stream, True)

    return make


def random_network(config: Any, rng_key: jax.Array) -> Problem:
    """A tanh network as it is drawn, at spectral radius 1, to say what came 12 steps ago."""
    keys = jax.random.split(rng_key, 4)
    size, num_inputs = config.hidden_size, 3
    num_steps = _SETTLING + config.window_length * config.num_windows
    params = {
        "cell": {
            "input": 0.1 * jax.random.normal(keys[0], (num_inputs, size)),
            "recurrent": jax.nn.initializers.orthogonal()(keys[1], (size, size), jnp.float64),
            "bias": jnp.zeros((size,)),
        },
        "readout": jax.random.normal(keys[2], (size, num_inputs)) / np.sqrt(size),
    }

    cell = artbp.cells.rnn.with_params(lambda params: params["cell"])

    def loss_fn(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(jnp.square(y @ params["readout"] - target), axis=-1)

    xs = jax.random.normal(keys[3], (num_steps, config.rows, num_inputs))
    targets = jnp.roll(xs, _DELAY, axis=0)
    carry, _ = artbp.unroll(cell, params, jnp.zeros((config.rows, size)), xs[:_SETTLING])
    stream = artbp.Stream(xs[_SETTLING:], targets[_SETTLING:])
    label = f"random tanh network, {size} units\nspectral radius 1"
    return Problem(label, cell, loss_fn, params, carry, stream, True)


def characters(config: Any, rng_key: jax.Array) -> Problem:
    """A character LSTM after a short training, on text that it has not been trained on."""
    train_steps, num_steps = config.character_steps, config.window_length * config.num_windows
    needed = config.character_rows * (train_steps + num_steps + 1)
    folder = os.environ.get(DATA_DIR_VARIABLE)
    corpus = penn_treebank(folder) if folder else generated_corpus(config.seed, needed // 20 + 2)
    xs, targets, _ = batch_rows(corpus.train[:needed], config.character_rows)
    model = character_model("lstm", len(corpus.vocabulary), config.character_hidden_size)
    init_key, run_key = jax.random.split(rng_key)
    params = model.init(init_key)
    carry = model.initial_carry(params, config.character_rows)
    estimator = artbp.tbptt(
        model.cell,
        model.loss_fn,
        truncation_length=32,
        normalizer=32.0 * config.character_rows,
        policy="dynamic",
    )
    seen = artbp.Stream(jnp.asarray(xs[:train_steps]), jnp.asarray(targets[:train_steps]))
    edges = np.array([0, train_steps])

    @jax.jit
    def train(params: Any, carry: Any, stream: artbp.Stream) -> tuple[Any, Any]:
        rate = config.character_rate
        run = train_whole(estimator, optax.adam, rate, params, carry, stream, run_key, edges=edges)
        settled, _ = artbp.unroll(model.cell, run.params, carry, stream.xs[-_SETTLING:])
        return run.params, settled

    params, carry = train(params, carry, seen)
    unseen = slice(train_steps, train_steps + num_steps)
    text = "Penn Treebank" if folder else "generated text"
    label = f"trained character LSTM, {config.character_hidden_size} units\n{text}"
    stream = artbp.Stream(xs[unseen], targets[unseen])
    return Problem(label, model.cell, model.loss_fn, params, carry, stream, False)


def make(name: str, config: Any, rng_key: jax.Array) -> Problem:
    """The problem of that name; but for "characters" to be called with JAX in float64."""
    makers = {
        "balancing": balancing,
        "short memory": linear(config.short_memory),
        "long memory": linear(config.long_memory),
        "random network": random_network,
        "characters": characters,
    }
    return makers[name](config, rng_key)
