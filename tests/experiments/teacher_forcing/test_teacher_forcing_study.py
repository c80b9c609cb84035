"""The study at a tiny size: what it writes, and which series each part is given."""

import json
from pathlib import Path

import numpy as np

from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.common.metrics import read_metrics
from experiments.teacher_forcing import __main__ as experiment
from experiments.teacher_forcing import data, forecasts, study
from experiments.teacher_forcing.config import default_config

CONFIGS = Path(__file__).parents[3] / "configs" / "teacher_forcing"
TINY = (
    "hidden_size=4",
    "batch_size=2",
    "num_steps=300",
    "free_steps=(0, 5)",
    "truth_steps=5",
    "learning_rates=(1e-3, 1e-2)",
    "num_seeds=2",
    "num_windows=4",
    "warm_up=10",
    "max_horizon=12",
)


def load(*overrides):
    return load_config(default_config(), CONFIGS / "default.py", (*TINY, *overrides))


def run(workdir, *overrides):
    experiment.main(load(*overrides), CommandLine(workdir, False, False, False))


def test_it_writes_its_files_and_the_same_numbers_again(tmp_path, capsys):
    run(tmp_path / "one")
    names = {path.name for path in (tmp_path / "one").iterdir()}
    expected = {"config.json", "metrics.jsonl", "results.json", "table.md"}
    assert names == expected | {"errors.png", "errors.svg"}
    rows = json.loads((tmp_path / "one" / "results.json").read_text(encoding="utf-8"))
    assert [(row["estimator"], row["free_steps"]) for row in rows] == [
        ("TBPTT", 0),
        ("TBPTT", 5),
        ("ARTBP", 0),
        ("ARTBP", 5),
        (None, None),
        (None, None),
    ]
    for row in rows[:4]:
        assert row["learning_rate"] in (1e-3, 1e-2)
        assert row["rate_at_edge"]
        assert set(row["errors"]) == {"1", "10"}
        assert all(len(values) == 2 for values in row["errors"].values())
    assert rows[0]["errors"] != rows[1]["errors"] != rows[2]["errors"]
    table = (tmp_path / "one" / "table.md").read_text(encoding="utf-8")
    assert sum(line.startswith("|") for line in table.splitlines()) == len(rows) + 2
    assert "--config configs/teacher_forcing/default.py" in table
    assert table in capsys.readouterr().out
    curves = read_metrics(tmp_path / "one" / "metrics.jsonl")
    assert [row["kind"] for row in curves] == ["forecast"] * 8 + ["baseline"] * 2
    assert all(len(row["errors"]) == 12 for row in curves)

    run(tmp_path / "two", "num_threads=1")
    again = json.loads((tmp_path / "two" / "results.json").read_text(encoding="utf-8"))
    for row, same in zip(rows, again, strict=True):
        np.testing.assert_allclose(row["mean_error"], same["mean_error"], rtol=1e-5)


def test_every_seed_validation_and_test_have_a_series_of_their_own(monkeypatch):
    """With stubs that hand on the task's seed: in the series, the losses and the errors."""

    def series(seed, num_rows, num_steps):
        values = np.arange(num_steps)[:, None, None] + np.full((1, num_rows, 1), 1000.0 * seed)
        return data.Series(values, values + 1)

    def train(params, rates, stream, rng_key):
        return params, np.full((len(rates), 1), stream.xs.value[0, 0, 0])

    def normalised_errors(all_params, given, *, warm_up):
        return np.full((2, 12), given.values[0, 0, 0])

    monkeypatch.setattr(data, "series", series)
    monkeypatch.setattr(forecasts, "series", series)
    monkeypatch.setattr(forecasts, "normalised_errors", normalised_errors)
    monkeypatch.setattr(study, "trainer", lambda *arguments: train)
    monkeypatch.setattr(study.model, "init", lambda key, hidden_size: None)
    results, _ = study.run_arms(load("num_seeds=3", "num_threads=1"), lambda line: None)
    assert len(results) == 4
    for result in results:
        trained = [int(loss) // 1000 for loss in result.training_loss[:, 0]]
        validation, test = int(result.scores[0]) // 1000, int(result.errors[0, 0]) // 1000
        assert trained == [0, 2, 4]
        assert len({*trained, validation, test}) == 5
        assert (validation, test) == (data.VALIDATION_SEED, data.TEST_SEED)
