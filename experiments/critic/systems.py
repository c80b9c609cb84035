"""The systems: influence balancing, a controller of a simulator, characters.

The critic predicts δ, the derivative of all later losses by the carry. How much of δ the carry
determines differs between them. In influence balancing the later losses are a function of the
carry, apart from the noise of the drive. In the simulator they are its cost to go, under unknown
disturbances. A character model that is calibrated has E[δ | carry] = 0: there is nothing to
predict.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from artbp import cells
from experiments.influence_balancing import system as balancing
from experiments.ptb.data import batch_rows
from experiments.ptb.generated import generated_corpus
from experiments.tasks import losses

LONGEST = 60_000  # steps of a training; the text has a few more for each row


class System(NamedTuple):
    """One system.

    Attributes:
      cell, loss_fn: with the model's own params.
      init: `init(rng_key) -> (params, carry)`.
      stream: `stream(seed, num_steps) -> artbp.Stream`.
      features: `features(carry) -> [B, n]`, what the critic sees.
      length: K, steps of a window.
      rows: B.
    """

    label: str
    cell: Any
    loss_fn: Any
    init: Callable[[jax.Array], tuple[Any, Any]]
    stream: Callable[[int, int], artbp.Stream]
    features: Callable[[Any], jax.Array]
    length: int
    rows: int


def _balancing() -> System:
    """The drive is noisy. Within one window the gradient has the wrong sign."""

    def init(rng_key: jax.Array) -> tuple[Any, Any]:
        del rng_key
        return {"theta": jnp.asarray(0.5)}, jnp.ones((1, balancing.NUM_STATES))

    def one(params: Any, carry: Any, x: Any) -> Any:
        carry, y = balancing.cell(params, carry[0], x[0])
        return carry[None], y[None]

    def stream(seed: int, num_steps: int) -> artbp.Stream:
        noise = np.random.default_rng([seed, 1]).standard_normal((num_steps, 1), np.float32)
        return artbp.Stream(jnp.asarray(1 + noise / 2))

    return System(
        "influence balancing", one, balancing.loss_fn, init, stream, lambda carry: carry, 10, 1
    )


def _controller() -> System:
    """A mass is held at the origin against random pushes; the cost is seen late.

    v' = v + 0.1 (u − v/5 + push),   p' = p + 0.1 v',   ℓ = p² + u²/100,   u = 2 tanh-network(p, v).
    """

    def init(rng_key: jax.Array) -> tuple[Any, Any]:
        keys = jax.random.split(rng_key)
        params = {
            "hidden": jax.random.normal(keys[0], (2, 16)),
            "bias": jnp.zeros(16),
            "output": jax.random.normal(keys[1], (16,)) / 16,
        }
        return params, jnp.zeros((16, 2))

    def cell(params: Any, carry: jax.Array, push: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden = jnp.tanh(carry @ params["hidden"] + params["bias"][None])
        force = 2 * hidden @ params["output"]
        velocity = carry[:, 1] + 0.1 * (force - carry[:, 1] / 5 + push)
        position = carry[:, 0] + 0.1 * velocity
        carry = jnp.stack([position, velocity], axis=1)
        return carry, jnp.stack([position, force], axis=1)

    def loss_fn(params: Any, y: jax.Array, target: Any) -> jax.Array:
        del params, target
        return y[..., 0] ** 2 + y[..., 1] ** 2 / 100

    def stream(seed: int, num_steps: int) -> artbp.Stream:
        rng = np.random.default_rng([seed, 2])
        pushes = rng.standard_normal((num_steps // 20 + 1, 16), np.float32)
        return artbp.Stream(jnp.asarray(np.repeat(pushes, 20, axis=0)[:num_steps]))

    return System("controller", cell, loss_fn, init, stream, lambda carry: carry, 5, 16)


def _characters() -> System:
    """An LSTM of 32 units on generated text."""
    units, rows = 32, 16
    corpus = generated_corpus(0, 40_000)
    symbols = len(corpus.vocabulary)

    def init(rng_key: jax.Array) -> tuple[Any, Any]:
        keys = jax.random.split(rng_key)
        params = {
            "cell": cells.lstm.init(keys[0], symbols, units),
            "readout": losses.init_readout(keys[1], units, symbols),
        }
        return params, cells.lstm.initial_carry(params["cell"], rows)

    def stream(seed: int, num_steps: int) -> artbp.Stream:
        xs, targets, _ = batch_rows(corpus.train, rows)
        first = np.random.default_rng([seed, 3]).integers(len(xs) - num_steps)
        place = slice(first, first + num_steps)
        return artbp.Stream(jnp.asarray(xs[place]), jnp.asarray(targets[place]))

    return System(
        "characters",
        cells.lstm.with_params(lambda params: params["cell"]),
        losses.cross_entropy,
        init,
        stream,
        lambda carry: jnp.concatenate([carry.memory, carry.hidden], axis=-1),
        10,
        rows,
    )


SYSTEMS = {"balancing": _balancing, "controller": _controller, "characters": _characters}
