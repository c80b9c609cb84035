"""Many jobs, a few at a time: in threads of this process."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from experiments.common.errors import TrainingInterruptedError

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    num_threads: int,
    *,
    expense: Callable[[Job], Any] | None = None,
    say: Callable[[str], None] | None = None,
    words: Callable[[Job, Result], str] | None = None,
) -> Iterator[Result]:
    """function(job) for each job, in their order, `num_threads` of them at the same time::

        for job in jobs:
            yield function(job)

    It pays because XLA leaves small loops to one core, and JAX lets go of Python's lock while a
    program compiles or runs. A thread begins with JAX's defaults: a context such as
    `jax.enable_x64` belongs inside the function. The first job starts when the first result is
    asked for.

    Args:
        function: what to do with a job.
        jobs: all of them.
        num_threads: how many at the same time.
        expense: `expense(job)` is larger for a job that takes longer. These start first, so that
            no thread is left with a long one at the end. By default, jobs start in their order.
        say: is given a line for each job that is done, in words that `words(job, result)` makes.
        words: see `say`.

    Raises:
        TrainingInterruptedError: Ctrl-C. Jobs that had not started never will.
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
        # Without waiting, so that an error is told at once; the interpreter waits at its exit.
        pool.shutdown(wait=False, cancel_futures=True)
