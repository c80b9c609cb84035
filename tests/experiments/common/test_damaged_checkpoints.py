"""A checkpoint is used as it was saved, or it is named and passed over for the one before."""

import dataclasses
import json
import math
import os
import random
import re
import shutil

import damage
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny_run

from experiments.common import checkpoint_series as module
from experiments.common.array_trees import hash_of_arrays
from experiments.common.checkpoints import Checkpoints
from experiments.common.errors import CheckpointError, DamagedCheckpointError
from experiments.common.provenance import versions
from experiments.common.session import Session
from experiments.common.workdir import hash_of_json

IDENTITY = {"config": "a", "data": "b"}


def make_state(fill):
    return {"weights": jnp.full((40, 50), fill), "key": jax.random.key(fill)}


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("two") / "c"
    with Checkpoints(path, identity=IDENTITY) as checkpoints:
        for number in (3, 9):
            checkpoints.save_latest(number, make_state(number), {"updates": number})
    return path


@pytest.fixture
def saved(two_saved, tmp_path):
    return shutil.copytree(two_saved, tmp_path / "c")


def restored(path, **options):
    """The counters, after a check that the arrays are the same ones."""
    with Checkpoints(path, identity=IDENTITY, **options) as checkpoints:
        found = checkpoints.restore_latest(make_state(0))
    assert found is not None
    state, record = found
    assert hash_of_arrays(state) == hash_of_arrays(make_state(record["updates"]))
    return record


def largest_file(checkpoint):
    files = (path for path in checkpoint.glob("tree/**/*") if path.is_file())
    return max(files, key=lambda path: path.stat().st_size)


def flip(path, place=-40):
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


def edit_manifest(checkpoint, mend=False, **changes):
    path = checkpoint / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    old = manifest.pop("sha256")
    path.write_text(json.dumps(manifest | {"sha256": hash_of_json(manifest) if mend else old}))


def swap_trees(checkpoint):
    other = checkpoint.parent / "3" / "tree"
    shutil.rmtree(checkpoint / "tree")
    shutil.copytree(other, checkpoint / "tree")


def pipe_for_file(checkpoint):
    path = largest_file(checkpoint)
    path.unlink()
    os.mkfifo(path)


def put_older_here(checkpoint):
    shutil.rmtree(checkpoint)
    shutil.copytree(checkpoint.parent / "3", checkpoint)


def put_file_here(checkpoint):
    shutil.rmtree(checkpoint)
    checkpoint.write_text("")


DAMAGES = {
    "another run's": (lambda c: edit_manifest(c, True, identity={"config": "c"}), "another config"),
    "counters edited": (lambda c: edit_manifest(c, record={"updates": 10**6}), "was changed"),
    "file cut": (lambda c: os.truncate(largest_file(c), 100), "has 100 bytes instead of"),
    "file deleted": (lambda c: largest_file(c).unlink(), "is missing"),
    "file for a folder": (put_file_here, "manifest.json is missing"),
    "flipped bit": (lambda c: flip(largest_file(c)), "was changed"),
    "manifest cut": (lambda c: os.truncate(c / "manifest.json", 90), "not valid JSON"),
    "manifest deleted": (lambda c: (c / "manifest.json").unlink(), "manifest.json is missing"),
    "manifest of another": (
        lambda c: shutil.copy(c.parent / "3" / "manifest.json", c / "manifest.json"),
        "saved as latest/3",
    ),
    "older one under a newer number": (put_older_here, "saved as latest/3"),
    "pipe": (pipe_for_file, "is missing"),
    "tree of another": (swap_trees, "missing|instead of|changed"),
}


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_a_damaged_one_is_named_and_passed_over(name, saved, capsys):
    do_damage, reason = DAMAGES[name]
    do_damage(saved / "latest" / "9")
    assert restored(saved, read_only=True) == {"updates": 3}
    assert not (saved / "damaged").exists(), "a reader moves nothing"
    capsys.readouterr()
    assert restored(saved) == {"updates": 3}
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"Warning: {saved / 'latest' / '9'} is not used: ")
    assert re.search(reason, warning)
    assert (saved / "damaged" / "latest-9").exists()
    # The number comes again.
    with Checkpoints(saved, identity=IDENTITY) as checkpoints:
        checkpoints.save_latest(9, make_state(9), {"updates": 9})
    assert restored(saved) == {"updates": 9}


def test_none_left_is_an_error_that_changes_nothing(saved):
    flip(largest_file(saved / "latest" / "9"))
    (saved / "latest" / "3" / "manifest.json").unlink()
    before = damage.contents(saved)
    with pytest.raises(CheckpointError) as caught:
        restored(saved)
    message = str(caught.value)
    for words in ("(9: tree/", "was changed; 3: manifest.json is missing)", "another --workdir"):
        assert words in message
    assert "\n" not in message
    assert damage.contents(saved) == before


def test_what_a_caller_refuses_is_passed_over_too(saved):
    def check(state, progress):
        if progress["updates"] == 9:
            raise DamagedCheckpointError("nine")

    with Checkpoints(saved, identity=IDENTITY) as checkpoints:
        found = checkpoints.restore_latest(make_state(0), check)
    assert found is not None and found[1] == {"updates": 3}


def test_other_versions_of_packages_are_named(saved, capsys):
    edit_manifest(
        saved / "latest" / "9", True, versions={**versions(module._PACKAGES), "jax": "0.1"}
    )
    assert restored(saved) == {"updates": 9}
    assert "saved with jax 0.1, now " in capsys.readouterr().err


def test_a_save_that_reads_back_as_something_else_replaces_nothing(saved, monkeypatch):
    before = damage.contents(saved)
    restore = ocp.Checkpointer.restore

    def other_values(self, *args, **kwargs):
        tree = restore(self, *args, **kwargs)
        tree["weights"] = np.array(tree["weights"])
        tree["weights"][7, 7] += 1
        return tree

    monkeypatch.setattr(ocp.Checkpointer, "restore", other_values)
    with (
        Checkpoints(saved, identity=IDENTITY) as checkpoints,
        pytest.raises(CheckpointError, match=r"11 could not be saved: .* read back .* --resume"),
    ):
        checkpoints.save_latest(11, make_state(11), {"updates": 11})
    assert damage.contents(saved) == before


def test_a_full_disk_leaves_the_checkpoints_before(saved, monkeypatch):
    before = damage.contents(saved)

    def fail(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_atomically", fail)
    with (
        Checkpoints(saved, identity=IDENTITY) as checkpoints,
        pytest.raises(CheckpointError, match=r"could not be saved: .* No space left on device"),
    ):
        checkpoints.save_latest(11, make_state(11), {"updates": 11})
    assert damage.contents(saved) == before
    assert not list((saved / "latest").glob("*.tmp"))


@pytest.mark.parametrize("name", ["a\\b", "line\nbreak", "run[1]"])
def test_odd_names_of_folders(name, tmp_path):
    with Checkpoints(tmp_path / name / "c", identity=IDENTITY) as checkpoints:
        checkpoints.save_latest(1, make_state(1), {"updates": 1})
    assert restored(tmp_path / name / "c") == {"updates": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_damaged_best_params(tmp_path):
    with Checkpoints(tmp_path / "c", identity=IDENTITY) as checkpoints:
        checkpoints.save_best(make_state(1), {"epoch": 1})
        assert checkpoints.best_record() == {"epoch": 1}
        flip(largest_file(tmp_path / "c" / "best" / "1"))
        for read in (checkpoints.best_record, lambda: checkpoints.restore_best(make_state(0))):
            with pytest.raises(CheckpointError, match=r"No checkpoint in .*best can be used"):
                read()
        with pytest.raises(CheckpointError, match=r"latest holds no checkpoint, but .*best does"):
            checkpoints.restore_latest(make_state(0))


# Whole runs: what is beside the arrays.


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    path = tmp_path_factory.mktemp("stopped") / "run"
    damage.interrupted(path)
    return path


@pytest.fixture
def run(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


def latest(run):
    return sorted((run / "checkpoints" / "latest").iterdir(), key=lambda c: int(c.name))


def change_progress(checkpoint, **changes):
    record = json.loads((checkpoint / "manifest.json").read_text())["record"]
    edit_manifest(checkpoint, True, record=record | changes)


def test_a_run_goes_on_from_the_older_one_bit_for_bit(run, uninterrupted):
    newest = latest(run)[-1]
    flip(largest_file(newest))
    outcome, warning = damage.resume(run, tiny_run.outcome(*uninterrupted))
    assert outcome == "passed", warning
    assert f"{newest} is not used" in warning


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"updates": 1000}, "it counts .* 1000 updates"),
        ({"epochs": 0}, "it counts 0 epochs .*, and its arrays stand after 1"),
        ({"metrics_cursor": 10**6}, "metrics.jsonl has .* bytes, but"),
        ({"best_epoch": 9}, "best params are those of epoch 1, not 9"),
        ({"chunks": None, "unknown": 1}, "its counters are wrong: unknown, chunks"),
    ],
)
def test_counters_that_disagree(changes, reason, run):
    for checkpoint in latest(run):
        change_progress(checkpoint, **changes)
    with pytest.raises(CheckpointError, match=reason):
        tiny_run.run(run, resume=True)


@pytest.mark.parametrize("what", ["best", "latest", "both", "rows"])
def test_what_is_gone(what, run):
    if what == "rows":
        (run / "metrics.jsonl").unlink()
    else:
        shutil.rmtree(run / "checkpoints" / (what if what != "both" else ""))
    before = damage.contents(run)
    outcome, message = damage.resume(run, None)
    assert outcome == "refused" and "another --workdir" in message, message
    assert damage.contents(run) == before


def test_a_changed_row(run):
    flip(run / "metrics.jsonl", place=200)
    outcome, message = damage.resume(run, None)
    assert outcome == "refused" and message.count("metrics.jsonl was changed") == 2


def test_other_data(run):
    stream = tiny_run.make_stream()
    stream = dataclasses.replace(stream, targets=stream.targets.at[0, 0].add(1))
    with pytest.raises(CheckpointError, match="a run with another data"):
        tiny_run.run(run, resume=True, stream=stream)


def test_no_progress_is_an_error_and_no_endless_loop(run, monkeypatch):
    monkeypatch.setattr(Session, "check", lambda self, state, record: None)
    change_progress(latest(run)[-1], epochs=0, evaluated_epochs=0)
    with pytest.raises(CheckpointError, match="makes no progress"):
        tiny_run.run(run, resume=True, checkpoint_every_seconds=math.inf)


def test_every_kind_of_random_damage_finds_a_place(stopped, tmp_path):
    for name, do_damage in damage.DAMAGES.items():
        copy = shutil.copytree(stopped, tmp_path / name)
        do_damage(copy, random.Random(0))
        assert damage.contents(copy) != damage.contents(stopped), name
