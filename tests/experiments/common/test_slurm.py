"""Jobs through submitit: preempted, queued again and resumed; killed; submitted once."""

import sys

import pytest
from slurm_jobs import Executor, Job

from experiments.common.errors import TrainingInterruptedError
from experiments.common.slurm import SubmittedJobs

submitit = pytest.importorskip("submitit")

# Stands for a training. The first time, Slurm preempts the job, and the process saves on SIGTERM.
PREEMPTED_ONCE = """
import os, pathlib, signal, sys
saved = pathlib.Path(sys.argv[1])

def save(number, frame):
    saved.write_text("half")
    sys.exit(130)

signal.signal(signal.SIGTERM, save)
if saved.exists():
    print("resumed from", saved.read_text())
    sys.exit(3)
print("started", flush=True)
for process in os.getpid(), os.getppid():  # Slurm signals all processes of a job
    os.kill(process, signal.SIGUSR2)
signal.pause()
"""


def test_a_preempted_job_is_queued_again_and_resumes(tmp_path):
    """submitit itself runs here, on this machine in place of a cluster."""
    log = tmp_path / "logs" / "run.log"
    executor = submitit.LocalExecutor(tmp_path / "submitit")
    with SubmittedJobs(2, executor, poll_seconds=0.05) as jobs:
        jobs.start("run", [sys.executable, "-c", PREEMPTED_ONCE, str(tmp_path / "saved")], log)
        assert jobs.running == {"run"} and jobs.num_idle == 1
        jobs.wait_for_one()
        assert jobs.ended() == [("run", 3)]
        assert not jobs.running
    assert log.read_text().splitlines() == ["started", "resumed from half"]


def test_a_job_that_a_signal_stopped_is_submitted_again_and_one_that_was_killed_is_not(tmp_path):
    log = tmp_path / "run.log"
    killed = submitit.core.utils.UncompletedJobError("no output (state: OUT_OF_MEMORY)")
    executor = Executor(Job(1, TrainingInterruptedError.exit_code), Job(2, killed))
    with SubmittedJobs(1, executor) as jobs:
        jobs.start("run", ["train"], log)
        assert jobs.ended() == [] and jobs.running == {"run"}
        assert jobs.ended() == [("run", 1)] and not jobs.running
    assert len(executor.commands) == 2
    assert "OUT_OF_MEMORY" in log.read_text()


def test_jobs_of_a_study_that_was_killed_are_waited_for_and_those_of_a_stopped_one_end(tmp_path):
    log = tmp_path / "run.log"
    first, second = Job(1), Job(2)
    SubmittedJobs(1, Executor(first)).start("run", ["train"], log)  # and never leaves a block
    assert not first.is_cancelled
    executor = Executor(there=[first])
    with pytest.raises(ZeroDivisionError), SubmittedJobs(1, executor) as jobs:
        jobs.start("run", ["train"], log)
        assert not executor.commands
        raise ZeroDivisionError
    assert first.is_cancelled
    first.outcome = TrainingInterruptedError.exit_code
    for there in [first], []:  # Slurm forgets jobs after some time
        executor = Executor(second, there=there)
        with SubmittedJobs(1, executor) as jobs:
            jobs.start("run", ["train"], log)
        assert len(executor.commands) == 1
