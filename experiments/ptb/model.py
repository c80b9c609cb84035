"""The character model: one recurrent layer on symbols, a linear readout, cross-entropy.

params = {"cell": parameters of one of `CELLS`, "readout": {"kernel", "bias"}}
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.common.errors import ConfigError
from experiments.ptb.authors_cell import authors_lstm
from experiments.tasks import losses

CELLS = {"lstm": artbp.cells.lstm, "gru": artbp.cells.gru, "authors_lstm": authors_lstm}


class CharacterModel(NamedTuple):
    """Pure functions of one model."""

    init: Callable[[jax.Array], Any]  # (rng_key) -> params
    initial_carry: Callable[[Any, int], Any]  # (params, batch_size) -> carry, zeros
    # (params, carry, x) -> (carry, y): x int32 [B], y float32 [B, hidden_size]
    cell: Callable[[Any, Any, jax.Array], tuple[Any, jax.Array]]
    # (params, y, target) -> nats [B]: target int32 [B]
    loss_fn: Callable[[Any, jax.Array, jax.Array], jax.Array] = losses.cross_entropy


@functools.lru_cache
def character_model(
    cell: str, num_symbols: int, hidden_size: int, products: str = "float32"
) -> CharacterModel:
    """A model with `hidden_size` units of the kind `cell`; raises ConfigError for other kinds.

    With `products` "bfloat16", the cell rounds its weights and biases, and what it multiplies the
    weights with, to bfloat16, and sums the products in float32. Params, carry, losses, updates and
    the readout stay float32.

    The same arguments give the same object, so that functions jitted for it are compiled once.
    """
    if cell not in CELLS:
        raise ConfigError(f"model.cell is {cell!r}: expected one of {', '.join(CELLS)}.")
    if hidden_size < 1:
        raise ConfigError(f"model.hidden_size is {hidden_size}: expected 1 or more.")
    if products not in ("float32", "bfloat16"):
        raise ConfigError(f"model.products is {products!r}: expected 'float32' or 'bfloat16'.")
    core = CELLS[cell]

    def cell_params(params):
        return jax.tree.map(lambda leaf: leaf.astype(products), params["cell"])

    def init(rng_key):
        cell_key, readout_key = jax.random.split(rng_key)
        return {
            "cell": core.init(cell_key, num_symbols, hidden_size),
            "readout": losses.init_readout(readout_key, hidden_size, num_symbols),
        }

    def initial_carry(params, batch_size):
        return core.initial_carry(params["cell"], batch_size)

    return CharacterModel(init, initial_carry, core.with_params(cell_params))


def bits(nats: float) -> float:
    """nats / ln 2."""
    return nats / math.log(2.0)


def bits_per_character(
    model: CharacterModel,
    params: Any,
    symbols: np.ndarray,
    newline: int,
    chunk: int = 4096,
    columns: int = 1,
) -> float:
    """Mean bits per symbol of a split, by streaming evaluation::

        carry, x, nats = zeros, newline, 0
        for symbol in symbols:                      # batch 1, one pass, the carry passed on
            carry, y = cell(params, carry, x)
            nats += loss(params, y, symbol)
            x = symbol
        return nats / len(symbols) / ln 2

    A split begins as a line does: the input before its first symbol is a newline. `symbols` is int
    [N], N >= 1. With more `columns`, the split is cut into as many contiguous parts of equal
    length, the last one perhaps shorter, which are read side by side, each from a carry of zeros.
    This is faster, and each part lacks the context before it.

    The hidden states of about `chunk` symbols are held at once, so that their readout is one matrix
    product; this changes only the order in which float32 losses are added.
    """
    steps = -(-len(symbols) // columns)
    chunk = min(-(-chunk // columns), steps)
    num_chunks = -(-steps // chunk)

    def in_chunks(values):
        by_column = np.pad(values, (0, steps * columns - len(symbols))).reshape(columns, steps)
        padded = np.pad(by_column.T, ((0, num_chunks * chunk - steps), (0, 0)))
        return jnp.asarray(padded.reshape(num_chunks, chunk, columns), jnp.int32)

    inputs = in_chunks(np.concatenate([[newline], symbols[:-1]]))
    valid = in_chunks(np.ones(len(symbols))).astype(bool)
    sums = _chunk_sums(model, params, inputs, in_chunks(symbols), valid)
    # Chunk sums are added in float64: one float32 sum over 400,000 losses loses digits.
    return bits(float(np.sum(np.asarray(sums), dtype=np.float64)) / len(symbols))


@functools.partial(jax.jit, static_argnames="model")
def _chunk_sums(model, params, xs, targets, valid):
    """Nats of each chunk, [num_chunks]; the others are [num_chunks, chunk, columns]."""

    def score(carry, inputs):
        x, target, is_valid = inputs
        carry, ys = artbp.unroll(model.cell, params, carry, x)
        nats = jax.vmap(model.loss_fn, in_axes=(None, 0, 0))(params, ys, target)
        return carry, jnp.sum(nats, where=is_valid)

    carry = model.initial_carry(params, xs.shape[-1])
    return jax.lax.scan(score, carry, (xs, targets, valid))[1]
