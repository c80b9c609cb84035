import errno
import os
import subprocess
import sys
from pathlib import Path

import jax
import ml_collections
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.common import cli
from experiments.common.errors import ExperimentError, TrainingInterruptedError


@pytest.fixture(autouse=True)
def flags_as_before():
    with flagsaver.flagsaver():
        yield
    flags.FLAGS.unparse_flags()


def run(monkeypatch, arguments, main=lambda config, command_line: None):
    monkeypatch.setattr(sys, "argv", ["experiment", "--nocompilation_cache", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.run(main, ml_collections.ConfigDict({"seed": 0}))
    return caught.value.code


def test_main_gets_the_configuration_and_the_flags(monkeypatch, tmp_path):
    seen = []
    code = run(
        monkeypatch,
        [
            *("--workdir", str(tmp_path / "w"), "--set", "seed=3", "--resume", "--noprogress_bar"),
            *("--checkpoint_every_seconds", "7"),
        ],
        lambda config, command_line: seen.append((config.seed, command_line)),
    )
    assert code in (None, 0)
    expected = cli.CommandLine(
        workdir=tmp_path / "w",
        resume=True,
        tensorboard=False,
        progress_bar=False,
        compilation_cache=False,
        checkpoint_every_seconds=7.0,
    )
    assert seen == [(3, expected)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workdir", "w", "--set", "sed=1"], "unknown config field 'sed'"),
        (["--workdir", "w", "--config", "none.py"], "no configuration file none.py"),
        ([], "No --workdir"),
        (["--workdir", "w", "resume"], "resume"),
    ],
)
def test_bad_input_is_one_message_without_a_traceback(monkeypatch, capsys, arguments, words):
    assert run(monkeypatch, arguments) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_exit_code_of_an_interrupted_run(monkeypatch, capsys):
    def main(config, command_line):
        raise TrainingInterruptedError("Stopped: go on with --resume.")

    assert run(monkeypatch, ["--workdir", "w"], main) == 130
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "w/x"), 2, "'w/x'. Free space"),
        (PermissionError(errno.EACCES, "Permission denied", "w/x"), 2, "'w/x'. Give yourself"),
        (KeyboardInterrupt(), 130, "Stopped at once by Ctrl-C"),
    ],
)
def test_the_machine_fails_in_one_line_that_says_what_to_do(
    error, code, words, monkeypatch, capsys
):
    def main(config, command_line):
        raise error

    assert run(monkeypatch, ["--workdir", "w"], main) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and "--resume" in line


def test_another_error_of_the_system_is_a_bug(monkeypatch):
    def main(config, command_line):
        raise FileNotFoundError(errno.ENOENT, "No such file", "w/x")

    monkeypatch.setattr(sys, "argv", ["experiment", "--nocompilation_cache", "--workdir", "w"])
    with pytest.raises(FileNotFoundError):
        cli.run(main, ml_collections.ConfigDict({"seed": 0}))


@pytest.mark.parametrize("progress_bar", [None, False])
def test_an_experiment_from_the_start(progress_bar, tmp_path, capsys, monkeypatch):
    """Its lines of progress tell the seconds. The second time in one folder, it says so first."""
    config = ml_collections.FrozenConfigDict({"seed": 0})
    command_line = cli.CommandLine(tmp_path / "run", False, False, progress_bar)
    now = 100.0
    monkeypatch.setattr(cli.time, "perf_counter", lambda: now)
    for is_again in (False, True):
        with cli.from_the_start(config, command_line) as (workdir, say):
            assert workdir.config_path.is_file()
            assert len(workdir.read_starts()) == 1  # the numbers are those of the last one
            now += 7.2
            say("half of it is done")
            now += 7.4
        printed = capsys.readouterr()
        lines = printed.err.splitlines()
        if is_again:
            assert "starts from the beginning and replaces the files" in lines.pop(0)
        assert lines == ([] if progress_bar is False else ["[   7 s] half of it is done"])
        assert printed.out.startswith("15 s in all.") and str(workdir.path) in printed.out


def test_an_experiment_that_fails_does_not_say_that_it_is_done(tmp_path, capsys):
    with (
        pytest.raises(ZeroDivisionError),
        cli.from_the_start({}, cli.CommandLine(tmp_path / "run", False, False, None)),
    ):
        raise ZeroDivisionError
    assert capsys.readouterr().out == ""


def test_tensorboard_is_refused_before_anything_is_written(tmp_path):
    command_line = cli.CommandLine(tmp_path / "run", False, True, None)
    with (
        pytest.raises(ExperimentError, match="--tensorboard was given"),
        cli.from_the_start({}, command_line),
    ):
        pytest.fail("It was not refused.")
    assert not (tmp_path / "run").exists()


def test_processors_with_other_instructions_share_no_compiled_programs(tmp_path):
    kinds = []
    for given in ("fpu avx2 avx512f", "fpu avx2", None):
        cpuinfo = tmp_path / f"cpuinfo {given}"
        if given is not None:
            text = f"processor : 0\nflags\t: {given}\nprocessor : 1\nflags\t: {given}\n"
            cpuinfo.write_text(text, encoding="utf-8")
        kinds.append(cli._kind_of_processor(cpuinfo))
    assert len(set(kinds)) == 3
    assert cli._kind_of_processor() == cli._kind_of_processor()


@pytest.mark.parametrize("given", [None, "0"])
def test_experiments_hide_the_log_of_xla_on_a_cpu(given):
    """XLA logs an error for each program that it takes from the cache, on some processors."""
    program = (
        "import os, sys; sys.argv[0] = '-m'; import experiments; "
        "print(experiments.runs_on_cpu_only(), os.environ.get('TF_CPP_MIN_LOG_LEVEL'))"
    )
    environment = {k: value for k, value in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {} if given is None else {"TF_CPP_MIN_LOG_LEVEL": given}
    command = [sys.executable, "-c", program]
    options = {"env": environment, "cwd": Path(cli.__file__).parents[2], "text": True}
    on_cpu, level = subprocess.run(
        command, check=True, capture_output=True, **options
    ).stdout.split()
    expected = "3" if on_cpu == "True" else "None"
    assert level == (given or expected)


def test_compilation_cache(monkeypatch, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        cli.enable_compilation_cache()
        chosen = jax.config.jax_compilation_cache_dir
        assert "artbp" in chosen
        cli.enable_compilation_cache()  # the same in the next process
        assert jax.config.jax_compilation_cache_dir == chosen
        jax.config.update("jax_compilation_cache_dir", "elsewhere")
        cli.enable_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == "elsewhere"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
