"""An interrupted run, resumed, is the uninterrupted run: parameters and rows, bit for bit."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run

from experiments.common.errors import TrainingInterruptedError, WorkdirError


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_interrupted_again_and_again(rows, uninterrupted, tmp_path):
    """After every so many rows: within an epoch, at its last chunk, at its evaluation."""
    signal_number = signal.SIGTERM if rows == 3 else signal.SIGINT
    interruptions = 0
    while True:
        try:
            with pytest.MonkeyPatch.context() as patch:
                tiny_run.interrupt_after_rows(patch, rows, signal_number)
                result = tiny_run.run(tmp_path, resume=interruptions > 0)
            break
        except TrainingInterruptedError as error:
            assert "--resume" in str(error)
            interruptions += 1
    assert interruptions >= 2
    tiny_run.assert_same_outcome(
        tiny_run.outcome(tmp_path, result), tiny_run.outcome(*uninterrupted)
    )


def test_checkpoints_leave_no_trace(uninterrupted, tmp_path):
    """Without one but at the ends of epochs: the same parameters and rows as with many."""
    result = tiny_run.run(tmp_path, checkpoint_every_seconds=math.inf)
    tiny_run.assert_same_outcome(
        tiny_run.outcome(tmp_path, result), tiny_run.outcome(*uninterrupted)
    )


def test_a_finished_run_resumes_to_its_end(uninterrupted):
    path, result = uninterrupted
    before = tiny_run.outcome(path, result)
    tiny_run.assert_same_outcome(tiny_run.outcome(path, tiny_run.run(path, resume=True)), before)


def test_a_run_in_the_folder_needs_resume(uninterrupted):
    with pytest.raises(WorkdirError, match="--resume"):
        tiny_run.run(uninterrupted[0])


# Where a process may die: (Python's audit event, part of its first argument, which one of them).
# The run saves its state at its start, then every few rows, and its best parameters in between.
KILLS = [
    # The first save has begun: folders, and nothing in them.
    ("os.mkdir", "tree.orbax-checkpoint-tmp", 1),
    # The third checkpoint is written whole and verified, and not yet under its name.
    ("os.rename", "latest/6.tmp", 3),
    # Not in a save: in the evaluation, with rows beyond the last checkpoint.
    ("tiny_run.evaluate", "params", 1),
    # The best parameters are being saved, the checkpoint that knows of them is not.
    ("os.mkdir", "best/2.tmp", 2),
    # A checkpoint is complete, and an older one is being deleted.
    ("shutil.rmtree", "checkpoints/latest", 1),
]


@pytest.mark.parametrize(
    "kills", [KILLS[1:4], pytest.param(KILLS, marks=pytest.mark.slow)], ids=["three", "all"]
)
def test_killed_again_and_again(kills, uninterrupted, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    workdir = tmp_path / "run"
    for event, path_part, count in kills:
        arguments = ["--event", event, "--path-part", path_part, "--count", str(count)]
        finished = subprocess.run(
            [sys.executable, tiny_run.__file__, str(workdir), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert finished.returncode == -signal.SIGKILL, (event, path_part, finished.stderr[-2000:])
    result = tiny_run.run(workdir, resume=True)
    tiny_run.assert_same_outcome(
        tiny_run.outcome(workdir, result), tiny_run.outcome(*uninterrupted)
    )
