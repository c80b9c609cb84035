"""The experiment at a tiny size; the stream; and what the gradient of each arm reaches."""

import json
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import workdirs

import artbp
from experiments.common.arms import parse
from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.common.metrics import read_metrics
from experiments.common.tuning import Choice
from experiments.memory import training
from experiments.memory.__main__ import STUDY
from experiments.memory.config import OWN, chosen_arms
from experiments.memory.report import coinciding, make_rows, reach
from experiments.memory.training import (
    CHANCE,
    NUM_ITEMS,
    NUM_SYMBOLS,
    Result,
    accuracy,
    counted_lags,
    make_estimator,
    make_stream,
)
from experiments.tasks import losses

CONFIG = Path(__file__).parents[3] / "configs" / "memory" / "default.py"
TINY = (
    "num_tuning_runs=2",
    "num_seeds=2",
    "episode_length=8",
    "num_episodes=16",
    "batch=2",
    "hidden_size=4",
    "arms=('readout_alone(3)', 'tbptt(4)', 'bptt(8)', 'artbp(3, alpha=4)')",
    "lags=(1, 5)",
    "learning_rates=(1e-2, 3e-2)",
    "test_episodes=3",
)


def load(*overrides):
    return load_config(STUDY.default_config(), CONFIG, (*TINY, *overrides))


def run(workdir, *overrides):
    STUDY.main(load(*overrides), CommandLine(workdir, False, False, None))


def test_writes_its_files(tmp_path, capsys):
    labels = [arm.label for arm in chosen_arms(load())]
    assert labels == ["readout alone", "TBPTT 4", "full BPTT", "ARTBP 3, α = 4"]
    # Each arm is a program to compile, which is most of this test's time: two are enough.
    run(tmp_path / "run", "arms=('tbptt(4)', 'artbp(3, alpha=4)')")
    labels = [labels[1], labels[3]]
    files = workdirs.FILES | {"memory.png", "memory.svg"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == files
    rows = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert [row["label"] for row in rows] == labels
    metrics = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["label"] for row in metrics if row["kind"] == "result"] == labels
    table = (tmp_path / "run" / "table.md").read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    assert all(table.count(f"| {label} |") == 2 for label in labels)
    for row in rows:
        every_lag, own_lag = (
            np.array(row[f"accuracy_{kind}"]) for kind in ("every_lag", "own_lag")
        )
        assert (every_lag.shape, own_lag.shape) == ((2, 8), (2, 2))
        assert np.all((every_lag >= 0) & (every_lag <= 1))
        tuning = np.array(row["tuning_loss"])  # [rates, trainings]
        best = np.array([1e-2, 3e-2])[tuning.argmin(0)]
        np.testing.assert_array_equal(row["learning_rates"], best)


def test_the_stream_shows_an_item_and_then_distractors():
    stream = make_stream(jax.random.key(0), 200, 5, 3)
    xs, targets, resets = (
        np.asarray(x).reshape(200, 5, 3) for x in (stream.xs, stream.targets, stream.resets)
    )
    np.testing.assert_array_equal(targets, np.broadcast_to(xs[:, :1], xs.shape))
    assert (xs[:, 1:] >= NUM_ITEMS).all()
    assert resets[:, 0].all()
    assert not resets[:, 1:].any()
    for symbols, first in ((xs[:, 0], 0), (xs[:, 1:], NUM_ITEMS)):
        shares = np.bincount(symbols.ravel(), minlength=NUM_SYMBOLS)[first : first + 4]
        assert shares.sum() == symbols.size
        assert (abs(shares / symbols.size - CHANCE) < 0.08).all()
    assert abs((xs[:-1, 0] == xs[1:, 0]).mean() - CHANCE) < 0.08


def test_counted_lags():
    np.testing.assert_array_equal(
        counted_lags(4, (1, 3)).astype(int), [[0, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 1]]
    )


@pytest.mark.parametrize("text", ["tbptt(4)", "readout_alone(8)"])
def test_the_gradient_reaches_the_item_for_lags_below_k2(text):
    """The weights of the item's symbols are used at the first step of an episode only."""
    key = jax.random.key(0)
    params = {
        "cell": artbp.cells.lstm.init(key, NUM_SYMBOLS, 4),
        "readout": losses.init_readout(key, 4, NUM_ITEMS),
    }
    carry = artbp.cells.lstm.initial_carry(params["cell"], 2)
    whole = make_stream(key, 2, 8, 2)
    arm = parse(text, OWN)
    estimator = make_estimator(arm, load())
    estimate = jax.jit(estimator.estimate)
    for lag in (1, 3, 4, 7):
        mask = np.broadcast_to(np.tile(counted_lags(8, (lag,))[1], 2)[:, None], (16, 2))
        stream = artbp.Stream(whole.xs, whole.targets, resets=whole.resets, mask=jnp.array(mask))
        state = estimator.init(params, carry, rng_key=key)
        total = jax.tree.map(jnp.zeros_like, params)
        for _ in range(16 // arm.length):
            grads, state, _ = estimate(params, state, stream)
            total = jax.tree.map(jnp.add, total, grads)
        of_items, of_distractors = total["cell"]["input"][:NUM_ITEMS], total["cell"]["input"][4:]
        assert bool(jnp.any(of_items != 0)) == (arm.name == "tbptt" and lag < arm.length)
        assert bool(jnp.any(of_distractors != 0)) == (arm.name == "tbptt")
        assert bool(jnp.any(total["readout"]["kernel"] != 0))


def test_accuracy_is_per_lag():
    """A network that remembers nothing and always answers 0, which is right at lag 3 only."""
    key = jax.random.key(1)
    params = {
        "cell": artbp.cells.lstm.init(key, NUM_SYMBOLS, 4),
        "readout": {"kernel": jnp.zeros((4, NUM_ITEMS)), "bias": jnp.array([1.0, 0, 0, 0])},
    }
    stream = make_stream(key, 6, 8, 2)
    lags = np.broadcast_to(np.tile(np.arange(8), 6)[:, None], (48, 2))
    stream = artbp.Stream(stream.xs, jnp.array((lags != 3).astype(int)), resets=stream.resets)
    np.testing.assert_array_equal(accuracy(params, stream, 8), np.arange(8) == 3)


def test_each_lag_of_its_own_takes_the_training_on_that_lag():
    choices = [Choice(0.1, 0, True, (0.0,))] * 3
    result = Result(parse("tbptt(4)"), choices, np.arange(24).reshape(2, 3, 4))
    # Training i of a seed holds 4 i, ..., 4 i + 3; the second seed's begin at 12.
    (row,) = make_rows(load("lags=(1, 3)", "episode_length=4"), [result])
    assert row["accuracy_own_lag"] == [[5, 11], [17, 23]]


def test_learning_rates_are_chosen_by_the_end_of_runs_that_are_not_reported(monkeypatch):
    """With a stub in place of training, whose losses and weights say which run it was given.

    The loss of the last bin falls with the rate, that of the first rises with it.
    """

    def train_whole(estimator, optimizer, rate, params, carry, stream, key, *, edges):
        np.testing.assert_array_equal(edges, [0, 96, 128])  # the last quarter is a bin
        mark = params["mark"]
        loss = jnp.stack([100 * rate, mark - 10 * rate])
        return types.SimpleNamespace(params={"mark": mark}, loss=loss)

    monkeypatch.setattr(training, "train_whole", train_whole)
    monkeypatch.setattr(
        training, "accuracy", lambda params, test, length: jnp.full(length, params["mark"])
    )
    config = load("num_seeds=3")
    cell = artbp.cells.lstm.init(jax.random.key(0), NUM_SYMBOLS, 4)
    runs = [
        ({"cell": cell, "mark": jnp.array(mark)}, jax.random.key(0))
        for mark in (1.0, 2.0, 10.0, 20.0, 30.0)
    ]
    result = training.train_arm(config, parse("tbptt(4)"), runs)
    np.testing.assert_allclose([c.scores for c in result.choices], [[1.4, 1.2]] * 3, rtol=1e-6)
    np.testing.assert_array_equal([c.rate for c in result.choices], [3e-2] * 3)
    np.testing.assert_array_equal(result.accuracy[:, 0, 0], [10, 20, 30])


def test_the_figure_names_the_lines_that_lie_on_one_another():
    def row(*accuracies):
        return {"label": str(accuracies), "accuracy_every_lag": [accuracies, accuracies]}

    rows = [row(0.3, 1.0, 1.0), row(1.0, 1.0, 0.5), row(1.0, 1.0, 0.995)]
    assert coinciding(rows) == [rows[0], rows[2]]  # lag 0 does not count


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [((0.9, 0.9, 0.9), 7), ((0.9, 0.5, 0.9), 1), ((0.9, 0.7, 0.3), 3), ((0.3, 0.9, 0.9), 0)],
)
def test_reach(accuracies, expected):
    assert reach(np.array(accuracies), (1, 3, 7)) == expected
