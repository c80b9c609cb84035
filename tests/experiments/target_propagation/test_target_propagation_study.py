"""The experiment at a tiny size, and what equal work means."""

import json

import numpy as np

from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.target_propagation.__main__ import STUDY
from experiments.target_propagation.config import chosen_arms
from experiments.target_propagation.training import affordable_sequences

TINY = (
    'arms=("tbptt(2)", "target_propagation(2, 2, 1, 1)")',
    "lag=1",
    "sequence_length=4",
    "num_sequences=11",
    "batch=2",
    "hidden_size=3",
    "learning_rates=(1e-2, 1e-1)",
    "penalties=(1.0,)",
    "test_sequences=2",
    "num_seeds=2",
)


def test_from_end_to_end(tmp_path):
    config = load_config(STUDY.default_config(), None, TINY)
    workdir = tmp_path / "run"
    STUDY.main(config, CommandLine(workdir, False, False, None))
    tbptt, target = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    assert tbptt["equal_work"] == tbptt["equal_data"]
    assert (tbptt["num_sequences"], target["num_sequences"]) == (11, 4)
    for row in (tbptt, target):
        assert all(0 < loss < 2 for loss in (*row["equal_work"], *row["equal_data"]))
    assert np.shape(target["tuning_loss"]) == (2,)


def test_equal_work():
    """BPTT evaluates the cell 3 times a step, target propagation 4 + 3 m + r times."""
    config = load_config(STUDY.default_config(), None, ())
    found = [affordable_sequences(arm, config) for arm in chosen_arms(config)]
    assert found == [1000, 1000, 300, 107, 103]
