"""Runs many jobs, a few at a time: in threads, or as processes of their own.

Threads serve small trainings, which XLA runs on one core each; processes serve long ones, which
keep checkpoints and can be resumed.
"""

import abc
import contextlib
import itertools
import os
import pathlib
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, Self, TypeVar

import jax

from experiments.common.errors import ConfigError, TrainingInterruptedError
from experiments.common.interrupts import catch_interrupts

Job = TypeVar("Job")
Result = TypeVar("Result")
Made = TypeVar("Made")
Cores = frozenset[int]

_POLL_SECONDS = 0.5
_ALONE = threading.Lock()
START_LINE = "--- started\n"  # in a log, before what an attempt at a job prints


def made_alone(make: Callable[..., Made], *arguments: Any) -> Made:
    """Returns make(*arguments), waited for; one thread at a time. See `in_threads`."""
    with _ALONE:
        return jax.block_until_ready(make(*arguments))


def in_threads(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    num_threads: int,
    *,
    expense: Callable[[Job], Any] | None = None,
    say: Callable[[str], None] | None = None,
    words: Callable[[Job, Result], str] | None = None,
) -> Iterator[Result]:
    """Yields function(job) for each job, in their order; `num_threads` jobs run at the same time.

    Threads help because XLA runs small loops on one core, and JAX releases Python's lock while a
    program compiles or runs. A thread begins with JAX's defaults: a context such as
    `jax.enable_x64` belongs inside the function. Nothing starts before the first result is read.

    Make orthogonal matrices before, and wait for them, or by `made_alone`: in JAX 0.10 on two
    cores, two threads that make them at the same time can wait for each other for ever.

    Args:
        function: returns the result of a job.
        jobs: all of them.
        num_threads: how many at the same time.
        expense: `expense(job)` is larger for a job that takes longer. These start first, so that
            no thread is left with a long one at the end. By default, jobs start in their order.
        say, words: `say(line)` prints a line for each job that is done, which holds
            `words(job, result)`.

    Raises:
        TrainingInterruptedError: Ctrl-C. Jobs that have not started are dropped.
    """
    count = itertools.count(1)

    def run(job: Job) -> Result:
        started = time.perf_counter()
        result = function(job)
        if say and words:
            seconds = time.perf_counter() - started
            say(f"[{next(count)}/{len(jobs)}] {words(job, result)}; {seconds:.0f} s")
        return result

    order = list(range(len(jobs)))
    if expense:
        order.sort(key=lambda i: expense(jobs[i]), reverse=True)
    pool = ThreadPoolExecutor(num_threads)
    try:
        futures = {i: pool.submit(run, jobs[i]) for i in order}
        for i in range(len(jobs)):
            yield futures[i].result()
    except KeyboardInterrupt:
        raise TrainingInterruptedError(
            "Stopped by Ctrl-C, without results. A compiled program cannot be stopped: the "
            "process ends when those running are done."
        ) from None
    finally:
        # Without waiting, so that an error is shown at once; the interpreter waits at its exit.
        pool.shutdown(wait=False, cancel_futures=True)


class Pool(abc.ABC):
    """Runs commands as jobs, at most `number` at a time; a context manager.

    On exit, also by an error or Ctrl-C, it stops the jobs still running.
    """

    _words_of_interrupt = "the same command goes on with what is left."

    def __init__(self, number: int, poll_seconds: float) -> None:
        if number < 1:
            raise ConfigError(f"--jobs is {number}: expected 1 or more.")
        self._number = number
        self._poll_seconds = poll_seconds
        self._running: dict[Hashable, Any] = {}
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._interrupts = self._exit.enter_context(catch_interrupts("stopping the runs"))
        return self

    def __exit__(self, *error: object) -> None:
        self._stop(self._running.values())
        self._exit.close()

    @property
    def running(self) -> Set[Any]:
        """The jobs that have started and not been given by `ended`."""
        return self._running.keys()

    @property
    def num_idle(self) -> int:
        """How many more may start."""
        return self._number - len(self._running)

    @abc.abstractmethod
    def start(self, job: Hashable, command: Sequence[str], log_path: pathlib.Path) -> None:
        """Starts the command of a job; what it prints is appended to the log."""

    @abc.abstractmethod
    def ended(self) -> list[tuple[Any, int]]:
        """Returns (job, exit code) of each job that has ended since the last call."""

    def wait_for_one(self) -> None:
        """Waits until a job has ended.

        Raises:
            TrainingInterruptedError: Ctrl-C or SIGTERM.
        """
        while not any(map(self._has_ended, self._running.values())):
            if self._interrupts.signal_name:
                raise TrainingInterruptedError(
                    f"{self._interrupts.signal_name}: {self._words_of_interrupt}"
                )
            time.sleep(self._poll_seconds)

    @abc.abstractmethod
    def _has_ended(self, running: Any) -> bool:
        """Whether a job has ended, given its entry in `_running`."""

    @abc.abstractmethod
    def _stop(self, running: Collection[Any]) -> None:
        """Stops the jobs with these entries."""


class Named(Protocol):
    """A job that has a name; hashable."""

    @property
    def name(self) -> str:
        """Unique among the jobs, and fit for the name of a file."""


NamedJob = TypeVar("NamedJob", bound=Named)


def run_jobs(
    pool: Pool,
    logs: pathlib.Path,
    *,
    missing: Callable[[Set[NamedJob]], Sequence[NamedJob]],
    command: Callable[[NamedJob], Sequence[str]],
    ended: Callable[[NamedJob, int], None],
    report: Callable[[Set[NamedJob]], None],
) -> None:
    """Runs the missing jobs until there are none, and calls `report` after every job.

    Args:
        pool: runs the commands.
        logs: the folder of the logs, one for each job.
        missing: `missing(running)` returns the jobs left to start, given those that run. It is read
            again after every job, since a result may make further jobs known.
        command: `command(job)` starts the job, or resumes it.
        ended: `ended(job, exit_code)` is called once for each job.
        report: `report(running)` writes what is known so far.

    Raises:
        TrainingInterruptedError: Ctrl-C or SIGTERM. The jobs that were running are stopped.
    """
    with pool:
        while True:
            for job, exit_code in pool.ended():
                ended(job, exit_code)
            for job in missing(pool.running)[: pool.num_idle]:
                print(f"start   {job.name}", flush=True)
                log = logs / f"{job.name}.log"
                logs.mkdir(parents=True, exist_ok=True)
                with log.open("a", encoding="utf-8") as file:
                    file.write(START_LINE)  # an earlier attempt may have written before it
                pool.start(job, command(job), log)
            report(pool.running)
            if not pool.running:
                return
            pool.wait_for_one()


class Processes(Pool):
    """Runs at most `number` commands at a time as processes, each on its own cores.

    On exit it sends SIGTERM to the processes still running and waits for them. A training saves a
    checkpoint on SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, _POLL_SECONDS)
        self._idle = shares_of_the_cores(number)

    def start(self, job: Hashable, command: Sequence[str], log_path: pathlib.Path) -> None:
        """Starts the command of a job; what it prints is appended to the log."""
        cores = self._idle.pop()
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            # A session of its own: Ctrl-C comes to this process, which passes it on once.
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        if cores and process.poll() is None:
            os.sched_setaffinity(process.pid, cores)
        self._running[job] = process, cores

    def ended(self) -> list[tuple[Any, int]]:
        """Returns (job, exit code) of each process that has ended since the last call."""
        codes = []
        for job, (process, _) in list(self._running.items()):
            if process.poll() is not None:
                self._idle.append(self._running.pop(job)[1])
                codes.append((job, process.returncode))
        return codes

    def _has_ended(self, running: tuple[subprocess.Popen, Cores]) -> bool:
        return running[0].poll() is not None

    def _stop(self, running: Collection[tuple[subprocess.Popen, Cores]]) -> None:
        for process, _ in running:
            process.terminate()
        for process, _ in running:
            process.wait()


def shares_of_the_cores(number: int) -> list[Cores]:
    """Deals the cores to `number` processes; the sets are empty where a system cannot do so.

    Two trainings on two cores make 1.25 times as many steps per second, each, on a core of their
    own as with threads on both cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        return [frozenset()] * number
    cores = sorted(os.sched_getaffinity(0))
    return [frozenset(cores[i::number] or [cores[i % len(cores)]]) for i in range(number)]
