"""Runs the jobs of a study or a sweep on a Slurm cluster, through submitit.

    ./run python -m experiments.ptb_study --workdir DIR --config configs/ptb/small.py \\
        --jobs 16 --executor slurm --slurm time=240 --slurm partition=gpu --slurm gpus_per_node=1

The process of the command itself stays on the machine where the command was given. It submits jobs
and writes the table. The workdir must be on a file system that the nodes share.
"""

import ast
import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
from collections.abc import Collection, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments.common.errors import (
    ConfigError,
    ExperimentError,
    TrainingInterruptedError,
    one_line,
)
from experiments.common.pool import Pool, Processes

if TYPE_CHECKING:
    import submitit

JOBS = flags.DEFINE_integer("jobs", 1, "Runs at the same time.")
_EXECUTOR = flags.DEFINE_enum(
    "executor", "local", ["local", "slurm"], "Run jobs as processes here, or on Slurm."
)
_SLURM = flags.DEFINE_multi_string(
    "slurm",
    [],
    "A parameter of the Slurm jobs, as submitit's SlurmExecutor takes it, any number of times: "
    "--slurm time=240 (minutes, required), --slurm partition=gpu, --slurm gpus_per_node=1.",
)
FLAGS = (JOBS, _EXECUTOR, _SLURM)

# How often a job may reach its time limit. After each it is queued again and resumes.
_MAX_TIMEOUTS = 1000


def make_pool(number: int, folder: pathlib.Path) -> Pool:
    """What the flags ask for: at most `number` jobs at a time, as processes or on Slurm.

    Args:
        number: 1 or more.
        folder: where submitit writes its scripts and logs.

    Raises:
        ConfigError: flags that do not fit together; no submitit, or no Slurm, on this machine.
    """
    if _EXECUTOR.value == "local":
        if _SLURM.value:
            raise ConfigError(f"--slurm {_SLURM.value[0]} was given without --executor slurm.")
        return Processes(number)
    return SubmittedJobs(number, _slurm_executor(folder, _SLURM.value))


def _slurm_executor(folder: pathlib.Path, parameters: Sequence[str]) -> "submitit.SlurmExecutor":
    try:
        import submitit
    except ImportError as error:
        raise ConfigError(
            "--executor is 'slurm', which needs submitit: pip install '.[slurm]'."
        ) from error
    given = dict(_parameter(text) for text in parameters)
    if "time" not in given:
        raise ConfigError(
            "--executor is 'slurm', but no time limit was given: pass --slurm time=MINUTES. A job "
            "that reaches it saves a checkpoint, is queued again, and resumes."
        )
    try:
        executor = submitit.SlurmExecutor(folder.absolute(), max_num_timeout=_MAX_TIMEOUTS)
        executor.update_parameters(**given)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"--executor is 'slurm', but submitit says: {one_line(error)}") from error
    return executor


def _parameter(text: str) -> tuple[str, Any]:
    """The name and the value, a Python literal or else a string, of `name=value`."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--slurm is {text!r}: expected name=value.")
    with contextlib.suppress(ValueError, SyntaxError):
        return name, ast.literal_eval(value)
    return name, value


@dataclasses.dataclass
class _Submitted:
    """A job that has been submitted, and what it takes to submit it again."""

    command: Sequence[str]
    log_path: pathlib.Path
    job: Any  # submitit.Job


class SubmittedJobs(Pool):
    """Runs at most `number` commands at a time as jobs of a cluster.

    A job that reaches its time limit, or that Slurm preempts, saves a checkpoint, is queued again
    and resumes, because its command is one that resumes.

    On exit by an error or Ctrl-C it cancels the jobs still running. If this process is killed, they
    go on: the next one with the same folder of logs finds their numbers there, and waits for them
    instead of submitting them again.
    """

    _words_of_interrupt = "the jobs are cancelled. The same command goes on with what is left."

    def __init__(
        self, number: int, executor: "submitit.Executor", poll_seconds: float = 5.0
    ) -> None:
        super().__init__(number, poll_seconds)
        self._executor = executor

    def start(self, job: Hashable, command: Sequence[str], log_path: pathlib.Path) -> None:
        """Submits the command of a job; what it prints is appended to the log."""
        log_path.parent.mkdir(parents=True, exist_ok=True)
        found = self._of_an_earlier_process(log_path)
        self._running[job] = _Submitted(command, log_path, found or self._submit(command, log_path))

    def ended(self) -> list[tuple[Any, int]]:
        """Returns (job, exit code) of each job that has ended since the last call.

        A job that was stopped by a signal, and has saved a checkpoint, is submitted again.
        """
        codes = []
        for job, submitted in list(self._running.items()):
            if not submitted.job.done():
                continue
            code = _exit_code(submitted)
            if code == TrainingInterruptedError.exit_code:
                submitted.job = self._submit(submitted.command, submitted.log_path)
            else:
                del self._running[job]
                codes.append((job, code))
        return codes

    def _has_ended(self, running: _Submitted) -> bool:
        return running.job.done()

    def _stop(self, running: Collection[_Submitted]) -> None:
        for submitted in running:
            submitted.job.cancel(check=False)

    def _submit(self, command: Sequence[str], log_path: pathlib.Path) -> Any:
        try:
            job = self._executor.submit(Command(command, log_path.absolute()))
        except RuntimeError as error:
            raise ExperimentError(f"The job cannot be submitted: {one_line(error)}") from error
        _number_path(log_path).write_text(job.job_id, encoding="utf-8")
        return job

    def _of_an_earlier_process(self, log_path: pathlib.Path) -> Any:
        """The job that writes this log, if an earlier process submitted it and it still runs."""
        path = _number_path(log_path)
        if not path.is_file():
            return None
        number = path.read_text(encoding="utf-8")
        job = self._executor.job_class(self._executor.folder, number)
        # The state is unknown where Slurm no longer keeps account of the job.
        return None if job.state == "UNKNOWN" or job.done() else job


def _number_path(log_path: pathlib.Path) -> pathlib.Path:
    return log_path.with_suffix(".job")


def _exit_code(submitted: _Submitted) -> int:
    """That of the command; 1 for a job that was killed, whose log then says so."""
    try:
        return submitted.job.result()
    except RuntimeError as error:  # those of submitit
        with submitted.log_path.open("a", encoding="utf-8") as log:
            log.write(f"{error}\n")
        return 1


class Command:
    """What a job runs: a command in a process of its own, which saves a checkpoint on SIGTERM.

    The call returns the exit code. submitit calls `checkpoint` when the job is to be stopped, and
    then queues what this returns: the same command.
    """

    def __init__(self, command: Sequence[str], log_path: pathlib.Path) -> None:
        self._command = list(command)
        self._log_path = log_path

    def __call__(self) -> int:
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Slurm sends the signal for submitit to all processes of the job.
                preexec_fn=lambda: signal.signal(_warning_signal(), signal.SIG_IGN),
            )
        try:
            return self._process.wait()
        finally:
            self._process.terminate()  # nothing where it has ended

    def checkpoint(self) -> Any:
        """Stops the process and waits until it has saved; returns the call that resumes."""
        import submitit

        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._process.pid, signal.SIGTERM)
            # `wait` would wait for itself: this handler of a signal interrupts it.
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(Command(self._command, self._log_path))


def _warning_signal() -> signal.Signals:
    """The signal by which submitit learns that a job is to be stopped."""
    return signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]
