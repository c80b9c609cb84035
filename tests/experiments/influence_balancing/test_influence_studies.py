"""Every study at a tiny size: what it writes, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import workdirs

from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.common.errors import (
    ConfigError,
    WorkdirError,
)
from experiments.common.metrics import read_metrics
from experiments.influence_balancing import settling
from experiments.influence_balancing.__main__ import STUDY

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs" / "influence_balancing"
ARMS = ("artbp(16, alpha=4)", "tbptt(10)")
TINY = ("num_keys=3", "num_steps=300", "num_unrolls=12", f"arms={ARMS}")


def run(config_name, workdir, *overrides):
    config = load_config(STUDY.default_config(), CONFIGS / f"{config_name}.py", (*TINY, *overrides))
    STUDY.main(config, CommandLine(workdir, False, False, None))


@pytest.mark.parametrize(
    ("config_name", "figure", "num_rows"),
    [
        ("default", "loss", len(ARMS)),
        ("persistent_es", "loss", len(ARMS)),
        ("irreducible", "theta", len(ARMS)),
        ("rates", "rates", len(ARMS) * 2 * 2),
    ],
)
def test_a_study_writes_its_files(config_name, figure, num_rows, tmp_path, capsys):
    run(config_name, tmp_path / "run", "grid_eta_0=(1e-3, 1e9)")
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == workdirs.FILES | {f"{figure}.png", f"{figure}.svg"}

    rows = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    table = (tmp_path / "run" / "table.md").read_text(encoding="utf-8")
    table_lines = [line for line in table.splitlines() if line.startswith("|")]
    assert isinstance(rows, list)
    assert len(rows) == num_rows == len(table_lines) - 2
    assert all(row["label"] in table for row in rows)
    assert all(isinstance(row["outcome"], str) for row in rows)
    printed = capsys.readouterr()
    assert table in printed.out
    assert "[2/2] " in printed.err
    if "share" in rows[0]:
        assert all(sum(row["share"].values()) == pytest.approx(1) for row in rows)
        assert all(row["share"][row["outcome"]] == max(row["share"].values()) for row in rows)

    metrics = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["label"] for row in metrics if row["kind"] == "result"] == [
        row["label"] for row in rows
    ]


def test_the_same_run_again_gives_the_same_numbers_and_another_one_is_refused(tmp_path):
    def numbers():
        rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        return [(row["arm"], row["share"], row["distance_median"]) for row in rows]

    one = "arms=('artbp(16, alpha=4)',)"
    run("default", tmp_path, one)
    first = numbers()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(WorkdirError, match="seed"):
        run("default", tmp_path, one, "seed=1")
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run("default", tmp_path, one)
    assert numbers() == first


def test_a_loss_at_the_unroll_end_needs_an_integer_length(tmp_path):
    with pytest.raises(ConfigError, match="expected an integer"):
        run("persistent_es", tmp_path / "run", "arms=('artbp(16.5, alpha=4)',)")
    assert not (tmp_path / "run").exists()


def test_settles_is_said_only_of_keys_at_their_prediction():
    row = {"mean_theta": 0.25, "predicted_theta": 0.25, "outcome": "at the predicted θ"}
    assert settling.words([row]) == "settles at 0.250 (predicted 0.250)"
    row |= {"mean_theta": 0.5, "outcome": "not at the predicted θ"}
    assert settling.words([row]) == "at θ ≈ 0.500 (predicted 0.250)"
    row |= {"predicted_theta": None, "outcome": "still moving"}
    assert settling.words([row]) == "at θ ≈ 0.500, still moving, as predicted"


def test_command_line_without_a_workdir_uses_results(tmp_path):
    arguments = [f"--set={override}" for override in (*TINY[:3], "arms=('tbptt(10)',)")]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.influence_balancing", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "TBPTT 10" in done.stdout
    assert (tmp_path / "results" / "influence_balancing" / "results.json").exists()
