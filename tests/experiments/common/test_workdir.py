import errno
import importlib.machinery
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import ml_collections
import pytest

from experiments.common import provenance
from experiments.common.errors import ConfigError, WorkdirError
from experiments.common.workdir import open_workdir, read_workdir, write_atomically

ROOT = pathlib.Path(__file__).parents[3]
CONFIG = {"seed": 1, "sizes": (1, 2), "optimizer": {"name": "adam", "learning_rate": 1e-3}}


def contents(path):
    return {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_new_folder_holds_the_config(tmp_path):
    workdir = open_workdir(tmp_path / "a" / "b", CONFIG)
    assert json.loads(workdir.config_path.read_text()) == json.loads(json.dumps(CONFIG))
    assert [p.name for p in workdir.path.iterdir()] == ["config.json"]
    again, config = read_workdir(tmp_path / "a" / "b")
    assert (again.path, config) == (workdir.path, json.loads(json.dumps(CONFIG)))


def test_each_start_is_recorded_beside_the_numbers(tmp_path, monkeypatch):
    program = importlib.machinery.ModuleSpec("experiments.toy.__main__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", program)
    monkeypatch.setattr(sys, "argv", ["program.py", "--set", "name=two words"])
    workdir = open_workdir(tmp_path / "run", CONFIG)
    assert workdir.read_starts() == []
    workdir.record_start()
    before = workdir.starts_path.read_bytes()
    # A damaged line costs that line only.
    workdir.starts_path.write_bytes(before + b'{"versions": null}\n{"time": "2026-')
    workdir.record_start()
    first, second = workdir.read_starts()
    assert [first] == [json.loads(before)]
    assert second["command"] == "python -m experiments.toy --set 'name=two words'"
    assert second["versions"]["jax"] == jax.__version__
    assert second["device"] == jax.devices()[0].device_kind
    workdir.record_start(anew=True)
    assert len(workdir.read_starts()) == 1


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_says_whether_files_have_changed(tmp_path):
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]

    def git(*words):
        command = ["git", "-C", str(tmp_path), *author, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert provenance.commit(tmp_path) is None  # no checkout
    git("init")
    assert provenance.commit(tmp_path) is None  # no commit
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--message=first")
    head = git("rev-parse", "HEAD")
    (tmp_path / "new").write_text("git does not know it")
    assert provenance.commit(tmp_path) == head
    (tmp_path / "file").write_text("two")
    assert provenance.commit(tmp_path) == f"{head}-dirty"


@pytest.mark.parametrize("as_config", [ml_collections.ConfigDict, ml_collections.FrozenConfigDict])
def test_same_config_resumes_only_when_asked(tmp_path, as_config):
    open_workdir(tmp_path, CONFIG)
    with pytest.raises(WorkdirError, match="pass --resume"):
        open_workdir(tmp_path, as_config(CONFIG))
    open_workdir(tmp_path, as_config(CONFIG), resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_another_config_names_the_fields_that_differ_and_writes_nothing(tmp_path, resume):
    open_workdir(tmp_path, CONFIG)
    before = contents(tmp_path)
    other = {"seed": 1, "sizes": (1, 3), "optimizer": {"name": "adam"}, "new": None}
    with pytest.raises(WorkdirError) as caught:
        open_workdir(tmp_path, other, resume=resume)
    message = str(caught.value)
    assert "sizes: [1, 2] there, [1, 3] given" in message
    assert "optimizer.learning_rate: 0.001 there, absent given" in message
    assert "new: absent there, null given" in message
    assert "seed" not in message and "optimizer.name" not in message
    assert contents(tmp_path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_foreign_files_are_left_alone(tmp_path, resume):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(WorkdirError, match=r"thesis\.tex"):
        open_workdir(tmp_path, CONFIG, resume=resume)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_file_instead_of_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="is a file"):
        open_workdir(tmp_path / "file", CONFIG)
    with pytest.raises(WorkdirError, match="cannot be used as a workdir"):
        open_workdir(tmp_path / "file" / "below", CONFIG)


def test_a_value_that_json_cannot_hold(tmp_path):
    with pytest.raises(ConfigError, match="JSON"):
        open_workdir(tmp_path / "a", {"mask": len})
    assert not (tmp_path / "a").exists()


def test_another_process_keeps_out_until_it_is_killed(tmp_path):
    open_workdir(tmp_path, CONFIG)
    open_workdir(tmp_path, CONFIG, resume=True)  # the same process may
    script = (
        "import sys, time; from experiments.common.workdir import open_workdir\n"
        "path, other = sys.argv[1:]\n"
        "open_workdir(other, {})\n"
        "try: open_workdir(path, %r, resume=True)\n"
        "except Exception as error: print(error, flush=True)\n"
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", script % CONFIG, str(tmp_path), str(tmp_path / "other")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "in use by another process" in process.stdout.readline()
        with pytest.raises(WorkdirError, match="in use by another process"):
            open_workdir(tmp_path / "other", {}, resume=True)
        process.kill()
    open_workdir(tmp_path / "other", {}, resume=True)


def test_what_a_kill_during_the_first_write_leaves_is_taken_over(tmp_path):
    (tmp_path / ".config.json.tmp").write_text('{"see')
    open_workdir(tmp_path, CONFIG, resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_altered_config_file(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WorkdirError, match="not valid JSON"):
        open_workdir(tmp_path, CONFIG, resume=True)


def test_config_file_that_holds_no_object(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(WorkdirError, match="expected a JSON object"):
        open_workdir(tmp_path, CONFIG, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_disk_that_cannot_be_written(resume, tmp_path, monkeypatch):
    if resume:
        open_workdir(tmp_path / "run", CONFIG)
    (tmp_path / "run").mkdir(exist_ok=True)
    before = contents(tmp_path)

    def fail(descriptor):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WorkdirError, match=r"cannot be used .* Read-only .* another --workdir"):
        open_workdir(tmp_path / "run", CONFIG, resume=resume)
    assert contents(tmp_path) == before


def test_read_of_a_folder_without_a_run(tmp_path):
    with pytest.raises(WorkdirError, match="holds no run"):
        read_workdir(tmp_path)


def test_write_atomically_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "table.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "half \ud800")
    assert path.read_text() == "old"
