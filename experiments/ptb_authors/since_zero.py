"""Bits per character of a trained model, against the number of steps since a zero state."""

import functools
import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.common.workdir import read_workdir
from experiments.ptb import data
from experiments.ptb.model import CharacterModel, bits, bits_per_character
from experiments.ptb.run import prepare
from experiments.ptb.trained import best_params

LENGTH, SEGMENT = 2000, 50
# Where segments of a row begin, modulo SEGMENT: those of TBPTT in training, and half-way between.
OFFSETS = (0, SEGMENT // 2)
# Steps since the zero state, counted from 1: the bins (0, 1], (1, 2], (2, 5], …
EDGES = (0, 1, 2, 5, 10, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300, 500, 1000, 2000)
_SYMBOLS = 400_000  # of each text, from its beginning; the validation text has no more
_COLUMNS = 64
_STRIDE = 500  # symbols between the beginnings of two parts of the text, which overlap


def scores(folder: pathlib.Path, data_dir: str | None) -> dict[str, Any]:
    """Scores the best params of a run, which may still be going on, on both texts.

    Returns:
        {"train" and "valid": {"carried": bits, "reset": bits with the state set to zero every
        `SEGMENT` steps, "since_zero": [bits in each bin of `EDGES`], "counting": the factor from
        bits per character to bits per character without the spaces at line ends}, and for "train"
        also "by_offset": see `bits_by_offset`}
    """
    workdir, values = read_workdir(folder)
    config = ml_collections.FrozenConfigDict(values)
    prepared = prepare(config, data_dir)
    model, corpus = prepared.model, prepared.corpus
    params = best_params(workdir, model)
    newline = corpus.vocabulary.symbols.index(data.NEWLINE)
    result = {}
    for split in ("train", "valid"):
        symbols = getattr(corpus, split)[:_SYMBOLS]
        score = functools.partial(bits_per_character, model, params, symbols, newline)
        line_spaces = 2 if config.data.keep_line_spaces else 0
        num_spaces = line_spaces * int(np.sum(symbols == newline))
        length = min(LENGTH, len(symbols) // 2)
        by_step = bits_by_step(model, params, symbols, newline, length, _STRIDE)
        pairs = itertools.pairwise(EDGES)
        in_bins = [by_step[low:high].mean() for low, high in pairs if low < len(by_step)]
        result[split] = {
            "carried": score(columns=_COLUMNS),
            "reset": score(columns=-(-len(symbols) // SEGMENT)),
            "since_zero": [float(value) for value in in_bins],
            "counting": len(symbols) / (len(symbols) - num_spaces),
        }
    result["train"]["by_offset"] = bits_by_offset(model, params, prepared.xs, prepared.targets)
    return result


def bits_by_offset(
    model: CharacterModel, params: Any, xs: np.ndarray, targets: np.ndarray
) -> list[float]:
    """Mean bits of the rows of training, with the state set to zero every `SEGMENT` steps.

    One number for each of `OFFSETS`, the first step of a row that is set to zero. Training by TBPTT
    sets the steps 0, `SEGMENT`, … to zero in every epoch, and never those half-way between.

    Args:
      xs, targets: int `[T, B]`, T ≥ 1.5 · `SEGMENT`. All rows are scored, over about `_SYMBOLS`
        symbols.
    """
    num_steps, num_rows = xs.shape
    count = min((num_steps - max(OFFSETS)) // SEGMENT, -(-_SYMBOLS // (SEGMENT * num_rows)))

    def segments(rows: np.ndarray, first: int) -> jax.Array:
        steps = rows[first : first + count * SEGMENT].reshape(count, SEGMENT, num_rows)
        return jnp.asarray(np.moveaxis(steps, 1, 0).reshape(SEGMENT, -1), jnp.int32)

    found = []
    for first in OFFSETS:
        nats = _nats_by_step(model, params, segments(xs, first), segments(targets, first))
        found.append(bits(float(np.mean(np.asarray(nats, np.float64)))))
    return found


def bits_by_step(
    model: CharacterModel,
    params: Any,
    symbols: np.ndarray,
    newline: int,
    length: int,
    stride: int,
) -> np.ndarray:
    """Mean bits of the k-th symbol since a zero state, [length].

    A part of `length` symbols begins at every `stride`-th symbol, and is read from a carry of
    zeros. Its first input is the symbol before it.
    """
    before = np.concatenate([[newline], symbols[:-1]])
    first = np.arange(0, len(symbols) - length + 1, stride)
    place = np.arange(length)[:, None] + first
    xs, targets = before[place], symbols[place]
    nats = _nats_by_step(model, params, jnp.asarray(xs, jnp.int32), jnp.asarray(targets, jnp.int32))
    return np.array([bits(value) for value in np.asarray(nats, np.float64)])


@functools.partial(jax.jit, static_argnames="model")
def _nats_by_step(model: CharacterModel, params: Any, xs: jax.Array, targets: jax.Array) -> Any:
    def step(carry: Any, given: Any) -> tuple[Any, jax.Array]:
        x, target = given
        carry, y = model.cell(params, carry, x)
        return carry, jnp.mean(model.loss_fn(params, y, target))

    return jax.lax.scan(step, model.initial_carry(params, xs.shape[1]), (xs, targets))[1]
