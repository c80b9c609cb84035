"""The character model: one recurrent layer on symbols, a linear readout, cross-entropy.

params = {"cell": parameters of artbp.cells.lstm or gru, "readout": {"kernel", "bias"}}
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import artbp
from experiments.common.errors import ConfigError

CELLS = {"lstm": artbp.cells.lstm, "gru": artbp.cells.gru}


class CharacterModel(NamedTuple):
    """Pure functions of one model.

    init(rng_key) -> params
    initial_carry(params, batch_size) -> carry, zeros
    cell(params, carry, x) -> (carry, y): x int32 [B], y float32 [B, hidden_size]
    loss_fn(params, y, target) -> nats [B]: target int32 [B]
    """

    init: Callable[[jax.Array], Any]
    initial_carry: Callable[[Any, int], Any]
    cell: Callable[[Any, Any, jax.Array], tuple[Any, jax.Array]]
    loss_fn: Callable[[Any, jax.Array, jax.Array], jax.Array]


@functools.lru_cache
def character_model(cell: str, num_symbols: int, hidden_size: int) -> CharacterModel:
    """A model with `hidden_size` units of the kind `cell` ("lstm" or "gru").

    The same arguments give the same object, so that what is jitted for it is compiled once.

    Raises ConfigError for another kind of cell, or no units.
    """
    if cell not in CELLS:
        raise ConfigError(f"model.cell is {cell!r}: expected one of {', '.join(CELLS)}.")
    if hidden_size < 1:
        raise ConfigError(f"model.hidden_size is {hidden_size}: expected 1 or more.")
    core = CELLS[cell]

    def init(rng_key):
        cell_key, readout_key = jax.random.split(rng_key)
        kernel_init = jax.nn.initializers.lecun_normal()
        return {
            "cell": core.init(cell_key, num_symbols, hidden_size),
            "readout": {
                "kernel": kernel_init(readout_key, (hidden_size, num_symbols), jnp.float32),
                "bias": jnp.zeros((num_symbols,), jnp.float32),
            },
        }

    def initial_carry(params, batch_size):
        return core.initial_carry(params["cell"], batch_size)

    def loss_fn(params, y, target):
        return optax.softmax_cross_entropy_with_integer_labels(logits(params, y), target)

    step = core.with_params(lambda params: params["cell"])
    return CharacterModel(init, initial_carry, step, loss_fn)


def model_from_config(config: Any, num_symbols: int) -> CharacterModel:
    """The model that `config.model` describes."""
    return character_model(config.model.cell, num_symbols, config.model.hidden_size)


def logits(params: Any, y: jax.Array) -> jax.Array:
    """Unnormalised log-probabilities of the next symbol, [B, num_symbols]."""
    return y @ params["readout"]["kernel"] + params["readout"]["bias"]


def bits(nats: float) -> float:
    """nats / ln 2."""
    return nats / math.log(2.0)
