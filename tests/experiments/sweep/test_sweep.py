"""A sweep: the runs that it lists, what it refuses, and what becomes of each run."""

import importlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import html_pages
import pytest
from absl import flags
from absl.testing import flagsaver
from slurm_jobs import Executor, Job

from experiments.common import fields
from experiments.common.config import load_config
from experiments.common.errors import ConfigError, TrainingInterruptedError, WorkdirError
from experiments.common.pool import START_LINE, Processes
from experiments.common.slurm import SubmittedJobs
from experiments.report.folder import write_html
from experiments.sweep import results
from experiments.sweep.plan import FIELDS, Run, experiments, runs_of
from experiments.sweep.running import Sweep, check_tensorboard

ROOT = Path(__file__).parents[3]
TINY = {"arms": ("tbptt(2)",), "num_steps": 20, "num_bins": 4}

# Stands for an experiment. The way it ends is its first field.
STUB = """
import json, os, pathlib, signal, sys, time
folder, how = pathlib.Path(sys.argv[1]), sys.argv[2].removeprefix("eta_0=")
folder.mkdir(parents=True, exist_ok=True)
if how == "0.1":
    sys.exit("Traceback\\nValueError: it is | so\\n----\\nFor simplicity, JAX has removed frames.")
if how == "0.2":
    os.kill(os.getpid(), signal.SIGKILL)
if how == "0.3":
    print("waits", flush=True)
    time.sleep(60)
(folder / "table.md").write_text(f"| method |\\n| --- |\\n| a {how} |\\n| b |\\n\\nA note.\\n")
(folder / "results.json").write_text(json.dumps([{"method": "a"}, {"method": "b"}]))
"""


@pytest.fixture
def load(tmp_path):
    """`load(*overrides, **values)` -> a configuration, from a file that holds the values."""

    def load(*overrides, **values):
        path = tmp_path / "sweep.py"
        path.write_text(f"def get_config():\n    return {values!r}\n")
        return load_config(fields.default_config(FIELDS), path, overrides, experiment="sweep")

    return load


def balancing(load, *rates, **values):
    """A sweep over first rates of influence balancing."""
    return load(experiment="influence_balancing", set=TINY, grid={"eta_0": rates}, **values)


def states(sweep):
    return {run.name: outcome.state for run, outcome in sweep.outcomes().items()}


def read_rows(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_each_named_run_is_at_each_point_of_the_grid(load):
    small = str(ROOT / "configs" / "ptb" / "small.py")
    config = load(
        experiment="ptb",
        config=small,
        set={"num_epochs": 1, "batch": 4, "data.source": "generated"},
        grid={"seed": (0, 1), "optimizer.options.b2": (0.9, 0.99)},
        runs={
            "artbp": {"set": {"arm": "artbp(50, alpha=4)", "batch": 8}},
            "memory": {"experiment": "memory", "config": "", "set": {}},
        },
    )
    runs = runs_of(config)
    assert [run.name for run in runs] == [
        f"{name}-b2={b2}-seed={seed}"
        for name in ("artbp", "memory")
        for b2 in (0.9, 0.99)
        for seed in (0, 1)
    ]
    first, last = runs[0], runs[-1]
    assert (first.experiment, first.config_path, last.experiment) == ("ptb", small, "memory")
    own = {"arm": "artbp(50, alpha=4)", "batch": 8, "optimizer.options.b2": 0.9, "seed": 0}
    assert dict(first.own) == own
    assert dict(first.values) == {"num_epochs": 1, "data.source": "generated"} | own
    assert "batch=4" in last.overrides and "arm='artbp(50, alpha=4)'" in first.overrides


def test_a_sweep_needs_no_file_and_a_grid_no_names(load):
    overrides = ["experiment=memory", "grid.arms=(('bptt(32)',), ('tbptt(8)',))", "set.seed=3"]
    runs = runs_of(load(*overrides))
    assert [run.name for run in runs] == ["memory-arms=bptt-32", "memory-arms=tbptt-8"]
    assert runs[0].overrides == ["seed=3", "arms=('bptt(32)',)"]
    assert runs[0] in {*runs}  # hashable: the jobs of a pool


PTB = {"experiment": "ptb", "set": {"data.source": "generated"}}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "experiment: '' is unknown; expected one of attentive_backtracking"),
        ({"experiment": "memmory"}, "'memmory' is unknown"),
        ({"experiment": "ptb_study"}, "'ptb_study' is unknown"),
        ({"experiment": "sweep"}, "'sweep' is unknown"),
        ({"experiment": 3}, "experiment was given 3"),
        ({"experiment": "memory", "config": "no.py"}, "Run memory: There is no .* no.py"),
        ({"experiment": "memory", "set": {"sed": 3}}, "unknown .* 'sed' of experiments.memory"),
        ({"experiment": "memory", "set": {"num_seeds": 1}}, "Run memory: .* at least 2"),
        ({"experiment": "memory", "set": {"batch": "many"}}, "batch was given 'many'"),
        ({"experiment": "memory", "set": ("seed=3",)}, "set is a section of fields"),
        ({"experiment": "memory", "runs": [{"set": {}}]}, "runs is a section of fields"),
        ({"experiment": "memory", "runs": {"a": 3}}, "runs.a was given 3"),
        (
            {"experiment": "memory", "runs": {"a": {"sets": {}}}},
            "runs.a was given sets: expected",
        ),
        ({"experiment": "memory", "runs": {"a": {"set": 3}}}, "runs.a.set was given 3"),
        ({"experiment": "memory", "runs": {"a": {"config": 3}}}, "runs.a.config was given 3"),
        ({"experiment": "memory", "runs": {"a b": {}}}, "the name 'a b': expected letters"),
        ({"experiment": "memory", "runs": {"a/b": {}}}, "the name 'a/b'"),
        ({"experiment": "memory", "runs": {"lr0.1": {"set": {}}}}, "was given 1: .* no dot"),
        ({"experiment": "memory", "set": {"seed": {1}}}, "a value that JSON cannot"),
        ({"experiment": "memory", "grid": {"seed": 3}}, r"grid.seed was given 3.*\(3,\)"),
        ({"experiment": "memory", "grid": {"seed": ()}}, "grid.seed is empty"),
        ({"experiment": "memory", "grid": {"seed": (0, 0)}}, "grid.seed .* each once"),
        ({"experiment": "memory", "grid": {"seed": (0, -1)}}, "Run memory-seed=-1: seed is -1"),
        ({"experiment": "memory", "grid": {"seed": (0,)}, "set": {"seed": 1}}, "both hold seed"),
        ({"experiment": "memory", "grid": {"arms": (("a b",), ("a-b",))}}, "memory-arms=a-b: give"),
        ({"experiment": "memory", "grid": {"arms": ("a" * 200,)}}, "at most 200"),
        (PTB | {"grid": {"arm": ("tbptt(0)",)}}, "Run ptb-arm=tbptt-0: .*length"),
        (PTB | {"set": {"data.source": "wiki"}}, "data.source is 'wiki'"),
        ({"experiment": "memory", "set": {"arms": ({},)}}, "holds a dict within a list"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line_and_nothing_is_written(
    values, words, load, tmp_path
):
    with pytest.raises(ConfigError, match=words) as caught:
        Sweep(load(**values), tmp_path / "sweep")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sweep").exists()


def test_a_missing_text_is_refused_before_anything_runs(load, tmp_path, monkeypatch):
    monkeypatch.setenv("ARTBP_DATA_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=r"Run ptb: .*ptb\.\w+\.txt"):
        Sweep(load(experiment="ptb"), tmp_path / "sweep")


def test_every_experiment_but_those_that_start_runs_is_known():
    assert {"ptb", "memory", "bias"} <= {*experiments()}
    for name in experiments():
        if name != "ptb":
            assert importlib.import_module(f"experiments.{name}.__main__").STUDY.name == name


def test_tensorboard_is_for_characters_only(load):
    check_tensorboard(runs_of(load(**PTB)))
    with pytest.raises(ConfigError, match="run memory writes no TensorBoard events"):
        check_tensorboard(runs_of(load(experiment="memory")))


def test_the_command_of_a_run_is_one_that_the_experiment_takes(load, tmp_path, monkeypatch, capsys):
    """In this process, with --dry_run, which loads and checks the configuration."""
    sweep = Sweep(balancing(load, 1e-3), tmp_path / "sweep", ["--nocompilation_cache"])
    _, flag, module, *arguments = sweep.command(sweep.runs[0])
    assert (flag, module) == ("-m", "experiments.influence_balancing")
    study = importlib.import_module(f"{module}.__main__").STUDY
    monkeypatch.setattr(sys, "argv", [module, *arguments, "--dry_run"])
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as caught:
        study.start()
    flags.FLAGS.unparse_flags()
    assert not caught.value.code
    text = capsys.readouterr().out
    assert "arms=('tbptt(2)',)" in text and "eta_0=0.001" in text


@pytest.fixture
def stubs(monkeypatch):
    """Each run is the stub, which begins in a moment."""

    def command(run, workdir):
        return [sys.executable, "-S", "-c", STUB, str(workdir), f"eta_0={dict(run.own)['eta_0']}"]

    monkeypatch.setattr(Run, "command", command)
    monkeypatch.setattr("experiments.common.pool._POLL_SECONDS", 0.02)


def test_each_run_becomes_a_row_and_only_what_is_missing_runs_again(load, tmp_path, stubs, capsys):
    folder = tmp_path / "sweep"
    Sweep(balancing(load, 0.1, 0.2, 0.4), folder).run_missing(Processes(2))
    name = "influence_balancing-eta_0="
    lines = capsys.readouterr().out.splitlines()
    assert f"failed  {name}0.1: ValueError: it is | so" in lines
    assert f"failed  {name}0.2: ended by SIGKILL" in lines and f"done    {name}0.4" in lines
    rows = read_rows(folder)
    told = [(row["run"], row["state"], row["fields"]["eta_0"], row["row"]) for row in rows]
    assert told == [
        (f"{name}0.1", "failed", 0.1, None),
        (f"{name}0.2", "failed", 0.2, None),
        (f"{name}0.4", "finished", 0.4, {"method": "a"}),
        (f"{name}0.4", "finished", 0.4, {"method": "b"}),
    ]
    table = (folder / "table.md").read_text()
    assert "3 runs: 2 failed, 1 finished." in table
    assert f"| {name}0.1 | 0.1 | failed: ValueError: it is \\| so |  |" in table
    assert f"| {name}0.4 | 0.4 | finished | [table](runs/{name}0.4/table.md) |" in table
    assert f"| run | method |\n| --- | --- |\n| {name}0.4 | a 0.4 |\n| {name}0.4 | b |" in table
    assert "num_steps" not in table  # the same in all runs

    # One more run, and those that failed are tried again; one that finished is not.
    more = Sweep(balancing(load, 0.1, 0.4, 0.5), folder)
    more.run_missing(Processes(1))
    assert re.findall(r"start +(\S+)", capsys.readouterr().out) == [f"{name}0.1", f"{name}0.5"]
    assert states(more) == {
        f"{name}0.1": "failed",
        f"{name}0.4": "finished",
        f"{name}0.5": "finished",
    }
    reader = html_pages.read(write_html(folder))
    assert {"sweep", "Results", "Configuration"} <= {*reader.headings}


def test_ctrl_c_stops_the_runs_and_the_table_says_which_are_left(load, tmp_path, stubs):
    folder = tmp_path / "sweep"
    sweep = Sweep(balancing(load, 0.3, 0.4), folder)
    log = folder / "logs" / "influence_balancing-eta_0=0.3.log"

    class Stopped(Processes):
        def wait_for_one(self):
            while log.read_text() == START_LINE:
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGTERM)
            super().wait_for_one()

    with pytest.raises(TrainingInterruptedError, match=r"^SIGTERM: the same command goes on") as e:
        sweep.run_missing(Stopped(1))
    assert "\n" not in str(e.value)
    assert [row["state"] for row in read_rows(folder)] == ["not finished"] * 2


def test_a_sweep_on_slurm_has_the_same_rows(load, tmp_path):
    """The jobs of the fake cluster end at once. The last one fails after it has written results."""
    folder = tmp_path / "sweep"
    sweep = Sweep(balancing(load, 0.1, 0.2, 0.4), folder)

    class Cluster(Executor):
        def submit(self, command):
            job = super().submit(command)
            run = sweep.runs[len(cluster.commands) - 1]
            if job.outcome != 2:
                workdir = sweep.run_folder(run)
                workdir.mkdir(parents=True)
                (workdir / "results.json").write_text('[{"loss": null}]')
            if job.outcome != 0:
                (folder / "logs" / f"{run.name}.log").write_text("ConfigError: no such file\n")
            return job

    cluster = Cluster(Job(1, 0), Job(2, 2), Job(3, 1))
    sweep.run_missing(SubmittedJobs(1, cluster, poll_seconds=0.01))
    assert [row["state"] for row in read_rows(folder)] == ["finished", "failed", "failed"]
    assert (folder / "table.md").read_text().count("failed: ConfigError: no such file") == 2
    assert len(cluster.commands) == 3


def test_the_bits_of_a_training_are_in_the_table(load, tmp_path):
    run = Run("a", "ptb", "", (), (("seed", 1),))
    found = {"valid_bpc": 1.5, "test_bpc": 1.25, "config": {"seed": 1}, "weight": float("inf")}
    outcomes = {run: results.Outcome("finished", results=found)}
    assert "| a | finished | 1.5000 | 1.2500 |" in results.markdown(tmp_path, outcomes)
    [row] = results.rows(outcomes)
    assert row["row"] == {"valid_bpc": 1.5, "test_bpc": 1.25, "weight": None}


def test_the_reason_of_a_failure_is_one_line(tmp_path):
    log = tmp_path / "log"
    log.write_text("")
    assert results.failure(1, log) == "exit code 1, and nothing in its log"
    log.write_text("Killed by the cluster\n\n")
    assert results.failure(1, log) == "Killed by the cluster"
    log.write_text(f"{START_LINE}DataError: of the first attempt\n{START_LINE}out of memory\n")
    assert results.failure(1, log) == "out of memory"
    log.write_text("jax.errors.JaxRuntimeError: " + "x" * 400)
    assert len(results.failure(1, log)) == 300


def test_results_of_another_configuration_are_a_failure(load, tmp_path):
    """A configuration file was edited while its run waited."""
    sweep = Sweep(balancing(load, 0.4), tmp_path / "sweep")
    [run] = sweep.runs
    sweep.run_folder(run).mkdir(parents=True)
    (sweep.run_folder(run) / "config.json").write_text('{"eta_0": 0.5}')
    (sweep.run_folder(run) / "results.json").write_text("[]")
    outcome = sweep.outcomes()[run]
    assert outcome.state == "failed" and outcome.failure.endswith("of the run that is there.")


def test_the_table_has_values_that_all_runs_share_where_one_has_another(load, tmp_path):
    runs = {"a": {}, "b": {"set": {"batch": 8}}}
    planned = runs_of(load(experiment="memory", set={"batch": 4}, runs=runs))
    outcomes = dict.fromkeys(planned, results.Outcome("not finished"))
    table = results.markdown(tmp_path, outcomes)
    assert "| a | 4 | not finished |" in table and "| b | 8 | not finished |" in table


def test_other_folders_are_left_alone(load, tmp_path, stubs):
    folder = tmp_path / "sweep"
    first = Sweep(balancing(load, 0.4), folder)
    first.claim()
    run_folder = first.run_folder(first.runs[0])
    run_folder.mkdir(parents=True)
    (run_folder / "config.json").write_text('{"eta_0": 0.5}')
    with pytest.raises(WorkdirError, match=r"(?s)holds another run.*eta_0: 0\.5 there, 0\.4 given"):
        Sweep(balancing(load, 0.4), folder)
    (folder / "config.json").write_text('{"eta_0": 0.5}')  # a run's own folder
    with pytest.raises(WorkdirError, match="holds another run"):
        first.claim()
    assert (folder / "config.json").read_text() == '{"eta_0": 0.5}'


@pytest.mark.slow
def test_a_tiny_sweep_from_end_to_end(load, tmp_path, monkeypatch):
    """Two processes: one finishes, and the folder of the other is not its own."""
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "sweep"
    sweep = Sweep(balancing(load, 1e-3, 2e-3), folder, ["--nocompilation_cache"])
    sweep.claim()
    foreign = sweep.run_folder(sweep.runs[1])
    foreign.mkdir(parents=True)
    (foreign / "thesis.txt").write_text("mine")
    sweep.run_missing(Processes(2))
    finished, failed = read_rows(folder)
    assert finished["state"] == "finished" and finished["row"]["eta_0"] == 1e-3
    assert failed["failure"].startswith("WorkdirError: ") and "thesis.txt" in failed["failure"]
    assert "| influence_balancing-eta_0=0.001 | TBPTT 2 |" in (folder / "table.md").read_text()
