"""Whose gradient reaches the symbols, the data, and the experiment at a tiny size."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.attentive_backtracking import training
from experiments.attentive_backtracking.__main__ import STUDY
from experiments.attentive_backtracking.config import ARMS
from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.tasks.copy_memory import copy_memory

TINY = (
    "lag=9",
    "num_recalled=(2,)",
    "truncation_length=2",
    "store_every=2",
    "top_k=3",
    "hidden_size=4",
    "batch=3",
    "num_updates=4",
    "num_points=2",
    "learning_rates=(1e-3,)",
    "test_sequences=5",
    "num_seeds=2",
    "num_threads=1",
)


def tiny(*more):
    return load_config(STUDY.default_config(), None, TINY + more)


@pytest.mark.parametrize("name", ARMS)
def test_whose_gradient_reaches_the_symbols(name):
    """The weights of a symbol that is seen at the beginning only get a gradient through jumps."""
    arm, config, number = ARMS[name], tiny(), 2
    params = training.init(arm, config, number, jax.random.key(0))
    xs, symbols = training.draw(jax.random.key(2), config.batch, config.lag, number)

    def loss(params):
        found = training.logits(arm, config, number, params, xs)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(found, symbols))

    rows = jax.grad(loss)(params)["cell"]["input"][np.unique(symbols)]
    assert jnp.any(rows != 0) == (name in ("sab", "bptt"))


def test_sequences_are_those_of_copy_memory():
    number, lag, batch = 3, 7, 2
    xs, symbols = training.draw(jax.random.key(0), batch, lag, number)
    drawn = next(copy_memory(lag, number).chunks(0, batch, len(xs))).stream
    of_symbols = np.arange(len(xs)) < number
    np.testing.assert_array_equal(xs[~of_symbols], drawn.xs[~of_symbols])
    np.testing.assert_array_equal(xs[:number], symbols)
    np.testing.assert_array_equal(drawn.targets[-number:], drawn.xs[:number])


def test_from_end_to_end(tmp_path):
    config = tiny('arms=("tbptt", "sab")')
    workdir = tmp_path / "run"
    STUDY.main(config, CommandLine(workdir, False, False, None))
    rows = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    assert [row["arm"] for row in rows] == ["tbptt", "sab"]
    for row in rows:
        assert np.shape(row["shares"]) == (2, 2)
        assert all(0 <= share <= 100 for share in row["accuracy"])
