"""The experiment at a tiny size; its data; what each arm trains."""

import json

import numpy as np
import pytest

from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.long_memory.__main__ import STUDY
from experiments.long_memory.config import arm_of
from experiments.long_memory.training import make_streams, recall

TINY = (
    "arms=('sab',)",
    "lag=1",
    "hidden_size=2",
    "batch=2",
    "num_sequences=10",
    "num_points=2",
    "test_sequences=3",
    "learning_rates=(1e-2,)",
    "num_seeds=2",
)


def load(*overrides):
    return load_config(STUDY.default_config(), None, (*TINY, *overrides))


def test_the_streams_are_whole_sequences():
    train, test = make_streams(load(), 0)
    for stream, number in ((train, 10), (test, 3)):
        assert stream.xs.shape == (21 * number, 2)
        np.testing.assert_array_equal(np.flatnonzero(stream.resets[:, 1]), 21 * np.arange(number))
        xs, targets = (array.reshape(number, 21, 2) for array in (stream.xs, stream.targets))
        np.testing.assert_array_equal(targets[:, 11:], xs[:, :10])
    again, _ = make_streams(load(), 1)
    assert not np.array_equal(train.xs, again.xs)


@pytest.mark.parametrize(("name", "length"), [("bptt", 21), ("sab", 21), ("tbptt", 5)])
def test_steps_of_an_update(name, length):
    assert arm_of(name, load()).length == length


def test_recall_is_that_of_the_last_ten_steps():
    _, test = make_streams(load(), 0)
    answers = np.array(test.targets)
    answers[:11] = 0  # blank, which does not count
    answers[[11, 20], 1] = 8  # two symbols of 60 missed
    logits = np.eye(9)[answers]
    assert float(recall(load(), logits, test.targets)) == pytest.approx(58 / 60)


def test_from_end_to_end(tmp_path):
    workdir = tmp_path / "run"
    STUDY.main(load(), CommandLine(workdir, False, False, None))
    (row,) = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    assert row["label"] == "SAB 5"
    losses = np.array(row["losses"])
    assert losses.shape == (2, 2)
    assert np.all(losses[:, 1] < losses[:, 0])
    assert all(0 <= recall <= 1 for recall in row["recall"])
    assert (workdir / "long_memory.png").is_file()
