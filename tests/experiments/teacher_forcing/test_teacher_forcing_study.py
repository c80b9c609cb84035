"""The study at a tiny size: what it writes, and which series each part is given."""

import json
from pathlib import Path

import numpy as np
import workdirs

from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.common.metrics import read_metrics
from experiments.teacher_forcing import model, training
from experiments.teacher_forcing.__main__ import STUDY

CONFIGS = Path(__file__).parents[3] / "configs" / "teacher_forcing"
TINY = (
    "hidden_size=4",
    "batch_size=2",
    "num_steps=300",
    "free_steps=(0, 5)",
    "truth_steps=5",
    "learning_rates=(1e-3, 1e-2)",
    "num_seeds=2",
    "num_tuning_runs=1",
    "num_windows=4",
    "warm_up=10",
    "max_horizon=12",
)


def load(*overrides):
    return load_config(STUDY.default_config(), CONFIGS / "default.py", (*TINY, *overrides))


def run(workdir, *overrides):
    STUDY.main(load(*overrides), CommandLine(workdir, False, False, False))


def test_it_writes_its_files_and_the_same_numbers_again(tmp_path, capsys):
    run(tmp_path / "one")
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == workdirs.FILES | {"errors.png", "errors.svg"}
    rows = json.loads((tmp_path / "one" / "results.json").read_text(encoding="utf-8"))
    assert [(row["arm"], row.get("free_steps")) for row in rows] == [
        ("tbptt(20)", 0),
        ("tbptt(20)", 5),
        ("artbp(20, alpha=4)", 0),
        ("artbp(20, alpha=4)", 5),
        (None, None),
        (None, None),
    ]
    for row in rows[:4]:
        assert row["learning_rate"] in (1e-3, 1e-2)
        assert row["rate_at_edge"]
        assert np.shape(row["errors"]) == (2, 12)
    assert rows[0]["errors"] != rows[1]["errors"] != rows[2]["errors"]
    table = (tmp_path / "one" / "table.md").read_text(encoding="utf-8")
    assert sum(line.startswith("|") for line in table.splitlines()) == len(rows) + 2
    assert "error 10 ahead" in table
    assert "error 50 ahead" not in table
    assert "python -m experiments.teacher_forcing" in table
    assert table in capsys.readouterr().out
    curves = [row["errors"] for row in read_metrics(tmp_path / "one" / "metrics.jsonl")]
    assert [np.shape(errors) for errors in curves] == [(2, 12)] * 4 + [(1, 12)] * 2

    run(tmp_path / "two", "num_threads=1")
    again = json.loads((tmp_path / "two" / "results.json").read_text(encoding="utf-8"))
    for row, same in zip(rows, again, strict=True):
        np.testing.assert_allclose(row["mean_error"], same["mean_error"], rtol=1e-5)


def stub_training(monkeypatch, normalised_errors):
    """Series hold the task's seed, and trainings return that of their series as params and loss."""

    def series(seed, num_rows, num_steps):
        values = np.arange(num_steps)[:, None, None] + np.full((1, num_rows, 1), 1000.0 * seed)
        return model.Series(values, values + 1)

    def train(params, rates, stream, rng_key):
        seed = stream.xs.value[0, 0, 0] // 1000
        return seed, np.full(len(rates), seed)

    monkeypatch.setattr(model, "series", series)
    monkeypatch.setattr(model, "normalised_errors", normalised_errors)
    monkeypatch.setattr(training, "make_trainer", lambda *arguments: train)
    monkeypatch.setattr(model, "init", lambda key, hidden_size: None)


def test_every_seed_validation_and_test_have_a_series_of_their_own(monkeypatch):
    def normalised_errors(all_params, given, *, warm_up):
        return np.full((2, 12), given.values[0, 0, 0] // 1000)

    stub_training(monkeypatch, normalised_errors)
    rows = training.run(load("num_seeds=3", "num_threads=1"), lambda line: None)
    assert len(rows) == 4 + 2
    for row in rows[:4]:
        trained, validation, test = (
            row["final_training_loss"],
            row["validation_scores"][0],
            row["errors"][0][0],
        )
        assert trained == [0, 2, 4]
        assert len({*trained, validation, test}) == 5
        assert (validation, test) == (training.VALIDATION_SEED, training.TEST_SEED)


def test_the_rate_is_chosen_on_the_validation_windows_by_the_mean_of_runs_not_reported(monkeypatch):
    """Two runs are reported (series 0 and 2), two choose the rate (series 4 and 6)."""
    by_series = {0: [9, 9, 1], 2: [9, 9, 1], 4: [3, 1, 0], 6: [3, 2, np.nan]}

    def normalised_errors(series, given, *, warm_up):
        is_test = given.values[0, 0, 0] // 1000 == training.TEST_SEED
        errors = np.arange(3.0) + 10 * series if is_test else np.array(by_series[series])
        return errors[:, None] * np.ones((3, 12))

    stub_training(monkeypatch, normalised_errors)
    config = load("num_tuning_runs=2", "learning_rates=(0.1, 0.2, 0.3)", "num_threads=1")
    for row in training.run(config, lambda line: None)[:4]:
        assert row["validation_scores"] == (3, 1.5, np.inf)
        assert row["learning_rate"] == 0.2
        assert not row["rate_at_edge"]
        np.testing.assert_array_equal(np.array(row["errors"])[:, 0], [1.0, 21.0])
