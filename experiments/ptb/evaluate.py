"""Bits per character of a model on a split, by streaming evaluation.

    carry, x, nats = zeros, newline, 0
    for symbol in symbols:                      # batch 1, one pass, the carry kept
        carry, y = cell(params, carry, x)
        nats += loss(params, y, symbol)
        x = symbol
    bits per character = nats / len(symbols) / ln 2

Every symbol of the split is scored, the newlines and the first symbol included: a split begins as
a line does, so the input before its first symbol is a newline, with a zero carry.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.ptb import model as model_lib

# Symbols whose hidden states are held at once, so that their readout is one matrix product.
_CHUNK = 4096


def bits_per_character(
    model: model_lib.CharacterModel,
    params: Any,
    symbols: np.ndarray,
    newline: int,
    chunk: int = _CHUNK,
) -> float:
    """Mean bits per symbol of `symbols`, int [N], N >= 1; `newline` is the newline's number.

    The result depends on `chunk` only by the order in which float32 losses are added.
    """
    inputs = np.concatenate([[newline], symbols[:-1]])
    num_chunks = -(-len(symbols) // chunk)
    padding = (0, num_chunks * chunk - len(symbols))

    def in_chunks(values):
        return jnp.asarray(np.pad(values, padding).reshape(num_chunks, chunk, 1), jnp.int32)

    valid = in_chunks(np.ones(len(symbols))).astype(bool)
    sums = _chunk_sums(model, params, in_chunks(inputs), in_chunks(symbols), valid)
    # Chunk sums are added in float64: one float32 sum over 400,000 losses loses digits.
    return model_lib.bits(float(np.sum(np.asarray(sums), dtype=np.float64)) / len(symbols))


@functools.partial(jax.jit, static_argnames="model")
def _chunk_sums(model, params, xs, targets, valid):
    """Nats of each chunk, [num_chunks]; xs, targets and valid are [num_chunks, chunk, 1]."""

    def score(carry, inputs):
        x, target, is_valid = inputs
        carry, ys = artbp.unroll(model.cell, params, carry, x)
        losses = jax.vmap(model.loss_fn, in_axes=(None, 0, 0))(params, ys, target)
        return carry, jnp.sum(losses, where=is_valid)

    return jax.lax.scan(score, model.initial_carry(params, 1), (xs, targets, valid))[1]
