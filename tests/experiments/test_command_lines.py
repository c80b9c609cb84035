"""The command line of every experiment: its help, its dry run, unknown fields; and their list."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import app, flags
from absl.testing import flagsaver

import experiments
from experiments import __main__ as listing
from experiments.common import catalogue
from experiments.common.study import Study

ROOT = Path(__file__).parents[2]
NAMES = sorted(catalogue.experiments())


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """`call(experiment, *arguments)` -> (exit code, output, errors), in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARTBP_DATA_DIR", raising=False)

    app.define_help_flags()
    if "help" not in flags.FLAGS:  # a flagsaver of another test has removed it
        flags.DEFINE_flag(app.HelpFlag())

    def call(experiment, *arguments):
        module = importlib.import_module(f"experiments.{experiment}.__main__")
        start = module.STUDY.start if hasattr(module, "STUDY") else module.start
        # absl shows the flags of the module that argv names.
        monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as caught:
            start()
        flags.FLAGS.unparse_flags()
        return (caught.value.code or 0, *capsys.readouterr())

    yield call
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("experiment", NAMES)
def test_help_lists_flags_and_fields(experiment, call):
    _, text, _ = call(experiment, "--help")
    for words in ("--config", "--set", "--workdir", "--[no]dry_run", "seed"):
        assert words in text
    assert ("--[no]download" in text) == experiment.startswith("ptb")


def test_help_begins_with_what_the_experiment_does():
    """absl prints the docstring of `__main__`; `python -m experiments` shows the same sentence."""
    for name in NAMES:
        module = importlib.import_module(f"experiments.{name}.__main__")
        title = (module.__doc__ or "").partition("\n")[0]
        assert title == catalogue.experiments()[name]
        assert re.fullmatch(r"[A-Z][a-z]+s .*\.", title)


def test_a_missing_package_is_followed_by_how_to_install_it(capsys):
    for error, is_missing in ((ModuleNotFoundError("pooch"), True), (ImportError("a"), False)):
        experiments.show_error(type(error), error, None)
        assert ("pip install -e '.[experiments]'" in capsys.readouterr().err) == is_missing


@pytest.mark.parametrize("experiment", NAMES)
def test_a_dry_run_shows_the_configuration_and_the_time_and_writes_nothing(experiment, call):
    config = catalogue.configs(experiment)[0]
    code, text, _ = call(experiment, f"--config={ROOT / config.path}", "--dry_run", "--workdir=w")
    assert code == 0
    assert f"Configuration of experiments.{experiment}:" in text
    assert f"Expected time, from {config.path}: {config.time}" in text


@pytest.mark.parametrize("experiment", NAMES)
def test_an_unknown_field_is_named_with_its_experiment(experiment, call):
    code, _, error = call(experiment, "--set=num_epocs=1", "--workdir=w")
    assert code == 2
    assert f"unknown config field 'num_epocs' of experiments.{experiment}." in error
    if experiment.startswith("ptb"):
        assert "Did you mean num_epochs?" in error


def test_the_nearest_field_may_be_in_a_section(call):
    _, _, error = call("ptb", "--set=hidden_sizes=3", "--workdir=w")
    assert "Did you mean model.hidden_size?" in error


def test_the_time_of_a_changed_configuration_is_not_known(call):
    _, text, _ = call("memory", "--dry_run", "--set=num_seeds=9")
    assert "Expected time: not known for this configuration. Known are:\n  configs/memory" in text


def test_a_dry_run_refuses_what_a_run_refuses(call):
    code, text, error = call("memory", "--dry_run", "--set=num_seeds=1")
    assert (code, text) == (2, "") and "a spread needs at least 2" in error


def test_every_configuration_says_what_it_is_how_long_it_takes_and_how_to_run_it():
    found = catalogue.configs()
    assert len(found) == len(list(ROOT.glob("configs/*/*.py"))) > 10
    for config in found:
        assert config.title.endswith(".") and config.time, config.path
        assert set(config.experiments) <= set(NAMES) and config.experiments


def test_the_list_holds_every_experiment_and_does_not_wait_for_jax():
    code = (
        "import runpy, sys\n"
        "try: runpy.run_module('experiments', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'jax', 'numpy', 'absl'} & set(sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    named = set(re.findall(r"experiments\.(\w+)", process.stdout))
    assert named - {"NAME", "report", "sample"} == set(NAMES)
    assert {"report", "sample"} <= named
    for config in catalogue.configs():
        assert f"--config {config.path}\n" in process.stdout
    # Every study of the package, so that none is left out for want of a command in its docstring.
    studies = {path.parent.name for path in ROOT.glob("experiments/*/config.py")}
    assert studies - {"common"} <= set(NAMES)
    assert all(len(line) <= 100 for line in process.stdout.splitlines())


def test_the_list_takes_no_argument_and_says_what_was_meant(capsys):
    assert listing.main(["memry"]) == 2
    error = capsys.readouterr().err
    assert "'memry' was given" in error and "python -m experiments.memory?" in error


def test_a_study_without_a_cost_says_so(call):
    assert Study("toy", {}, lambda config, say: None).cost(None) == ()
    _, text, _ = call("phase", "--dry_run")
    assert "Parameters, steps and memory: not known before the run." in text


@pytest.mark.parametrize(
    ("experiment", "arguments", "lines"),
    [
        # LSTM 4 · 32 · (8 + 32 + 1), readout 4 · (32 + 1). 6 arms, 6 losses, 2 · 7 + 4 runs.
        ("memory", [], "Parameters: 5,380.\nSteps: 648 trainings of 24,576 time steps of 32 rows."),
        # Three arms without randomness have one run each, five have 128.
        ("influence_balancing", [], "Steps: 643 runs of 100,000 time steps."),
        ("influence_balancing", ["--set=study=rates"], "Steps: 9,002 runs of"),
    ],
)
def test_the_cost_of_a_study(experiment, arguments, lines, call):
    _, text, _ = call(experiment, "--dry_run", *arguments)
    assert lines in text
