"""The systems: cell, loss, params away from their optimum, and a stream of data."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common.arms import parse
from experiments.common.whole_run import train_whole
from experiments.influence_balancing import system as influence
from experiments.ptb.data import batch_rows
from experiments.ptb.found_text import find_text
from experiments.ptb.model import character_model

_SETTLING = 512  # steps before the stream, in which the carry becomes stationary
_DELAY = 12  # the target of the random network is the input of so many steps ago


class System(NamedTuple):
    """A system to measure.

    Attributes:
        label: for the figure.
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


def _settled(
    label: str, cell: Any, loss_fn: Any, params: Any, start: Any, xs: Any, targets: Any = None
) -> System:
    """A small system; the first inputs make its carry stationary."""
    carry, _ = artbp.unroll(cell, params, start, xs[:_SETTLING])
    stream = artbp.Stream(xs[_SETTLING:], None if targets is None else targets[_SETTLING:])
    return System(label, cell, loss_fn, params, carry, stream, is_small=True)


def _num_steps(config: Any) -> int:
    return _SETTLING + config.window_length * config.num_windows


def balancing(config: Any, rng_key: jax.Array) -> System:
    """Influence balancing with a noisy drive, at θ = 0.5, where the optimum is below 0."""
    xs = 1 + 0.5 * jax.random.normal(rng_key, (_num_steps(config),))
    label = "influence balancing\nTBPTT needs more than 100 steps"
    params, start = {"theta": jnp.asarray(0.5)}, influence.initial_carry()
    return _settled(label, influence.cell, influence.loss_fn, params, start, xs)


def linear(memory: str, config: Any, rng_key: jax.Array) -> System:
    """s ← ρ s + θ x with ρ = exp(−1/memory), at θ = 0.5; the target is s of the system at θ = 1.

    memory: the name of its field in the configuration.
    """
    decay = float(np.exp(-1 / config[memory]))

    def cell(params: Any, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        carry = decay * carry + params["theta"] * x
        return carry, carry

    def loss_fn(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
        return 0.5 * jnp.square(y - target)

    start = jnp.zeros((config.rows,))
    xs = jax.random.normal(rng_key, (_num_steps(config), config.rows))
    _, targets = artbp.unroll(cell, {"theta": jnp.asarray(1.0)}, start, xs)
    label = f"linear system\nmemory {config[memory]:g} steps"
    params = {"theta": jnp.asarray(0.5)}
    return _settled(label, cell, loss_fn, params, start, xs, targets)


def random_network(config: Any, rng_key: jax.Array) -> System:
    """An untrained tanh network, spectral radius 1; the target is the input of 12 steps ago."""
    keys = jax.random.split(rng_key, 4)
    size, num_inputs = config.hidden_size, 3
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

    xs = jax.random.normal(keys[3], (_num_steps(config), config.rows, num_inputs))
    start, targets = jnp.zeros((config.rows, size)), jnp.roll(xs, _DELAY, axis=0)
    label = f"random tanh network, {size} units\nspectral radius 1"
    return _settled(label, cell, loss_fn, params, start, xs, targets)


def characters(config: Any, rng_key: jax.Array) -> System:
    """A character LSTM after a short training by TBPTT, on text that it has not been trained on.

    The text is Penn Treebank where ARTBP_DATA_DIR names its folder, else generated text.
    """
    train_steps, rows = config.character_steps, config.character_rows
    last = train_steps + config.window_length * config.num_windows
    needed = rows * (last + 1)
    corpus, is_generated = find_text(config.seed, needed)
    xs, targets, _ = batch_rows(corpus.train[:needed], rows)
    model = character_model("lstm", len(corpus.vocabulary), config.character_hidden_size)
    init_key, run_key = jax.random.split(rng_key)
    params = model.init(init_key)
    carry = model.initial_carry(params, rows)
    given = {"normalizer": 32.0 * rows, "policy": "dynamic"}
    estimator = parse("tbptt(32)").build(model.cell, model.loss_fn, **given)
    seen = artbp.Stream(jnp.asarray(xs[:train_steps]), jnp.asarray(targets[:train_steps]))
    edges = np.array([0, train_steps])

    @jax.jit
    def train(params: Any, carry: Any, stream: artbp.Stream) -> tuple[Any, Any]:
        rate = config.character_rate
        run = train_whole(estimator, optax.adam, rate, params, carry, stream, run_key, edges=edges)
        settled, _ = artbp.unroll(model.cell, run.params, carry, stream.xs[-_SETTLING:])
        return run.params, settled

    params, carry = train(params, carry, seen)
    text = "generated text" if is_generated else "Penn Treebank"
    label = f"trained character LSTM, {config.character_hidden_size} units\n{text}"
    stream = artbp.Stream(xs[train_steps:last], targets[train_steps:last])
    return System(label, model.cell, model.loss_fn, params, carry, stream, is_small=False)


# `make(config, rng_key)`, but for "characters" to be called with JAX in float64.
SYSTEMS: dict[str, Callable[[Any, jax.Array], System]] = {
    "balancing": balancing,
    "short memory": functools.partial(linear, "short_memory"),
    "long memory": functools.partial(linear, "long_memory"),
    "random network": random_network,
    "characters": characters,
}
