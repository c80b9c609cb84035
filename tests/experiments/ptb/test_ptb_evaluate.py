"""Streaming evaluation against the loop of its docstring."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common.errors import ConfigError
from experiments.ptb.model import bits_per_character, character_model
from experiments.tasks.losses import readout

NEWLINE = 2
SYMBOLS = np.random.default_rng(1).integers(0, 6, 45).astype(np.int32)


def _naive_bits(model, params, symbols, first):
    carry, x, nats = model.initial_carry(params, 1), first, 0.0
    for symbol in symbols:
        carry, y = model.cell(params, carry, jnp.asarray([x]))
        nats -= float(jax.nn.log_softmax(readout(params, y))[0, symbol])
        x = symbol
    return nats / len(symbols) / math.log(2)


@pytest.fixture(scope="module", params=["lstm", "gru"])
def model_and_params(request):
    model = character_model(request.param, num_symbols=6, hidden_size=5)
    params = model.init(jax.random.key(0))
    # Larger weights, so that the state matters.
    return model, jax.tree.map(lambda leaf: 3.0 * leaf, params)


@pytest.mark.parametrize("chunk", [1, 7, 45, 64])
def test_equals_the_naive_loop(model_and_params, chunk):
    model, params = model_and_params
    bits = bits_per_character(model, params, SYMBOLS, NEWLINE, chunk)
    assert bits == pytest.approx(_naive_bits(model, params, SYMBOLS, NEWLINE), rel=1e-5)


@pytest.mark.parametrize("columns", [2, 3, 7, 45, 50])
def test_columns_are_read_side_by_side_each_from_zeros(model_and_params, columns):
    model, params = model_and_params
    bits = bits_per_character(model, params, SYMBOLS, NEWLINE, 12, columns=columns)
    length, before = -(-len(SYMBOLS) // columns), [NEWLINE, *SYMBOLS]
    expected = sum(
        len(part := SYMBOLS[i : i + length]) * _naive_bits(model, params, part, before[i])
        for i in range(0, len(SYMBOLS), length)
    )
    assert bits == pytest.approx(expected / len(SYMBOLS), rel=1e-5)


def test_the_first_symbol_is_scored_after_a_newline(model_and_params):
    model, params = model_and_params
    for symbols in (SYMBOLS, SYMBOLS[:1]):
        scored = bits_per_character(model, params, symbols, NEWLINE, 16)
        other = _naive_bits(model, params, symbols, NEWLINE + 1)
        assert scored == pytest.approx(_naive_bits(model, params, symbols, NEWLINE), rel=1e-5)
        assert scored != pytest.approx(other, rel=1e-4)


def test_the_carry_is_kept(model_and_params):
    model, params = model_and_params
    whole = bits_per_character(model, params, SYMBOLS[:40], NEWLINE, 8)
    apart = [
        _naive_bits(model, params, SYMBOLS[i : i + 8], SYMBOLS[i - 1]) for i in range(8, 40, 8)
    ]
    first = _naive_bits(model, params, SYMBOLS[:8], NEWLINE)
    assert whole != pytest.approx(np.mean([first, *apart]), rel=1e-4)


def test_loss_of_a_uniform_model_is_the_log_of_the_alphabet():
    model = character_model("lstm", num_symbols=6, hidden_size=3)
    params = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0)))
    assert bits_per_character(model, params, SYMBOLS, NEWLINE) == pytest.approx(math.log2(6))


def test_an_unknown_cell_or_size_is_refused():
    with pytest.raises(ConfigError, match=r"model\.cell is 'rnn': expected one of lstm, gru"):
        character_model("rnn", 6, 5)
    with pytest.raises(ConfigError, match=r"model\.hidden_size is 0"):
        character_model("gru", 6, 0)
