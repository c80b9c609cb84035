"""Many jobs, a few at a time."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from experiments.common.errors import TrainingInterruptedError

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Job], Result], jobs: Sequence[Job], num_threads: int
) -> Iterator[Result]:
    """function(job) for each job, in their order, `num_threads` of them at the same time::

        for job in jobs:
            yield function(job)

    It pays because XLA leaves small loops to one core, and JAX lets go of Python's lock while a
    program compiles or runs. A thread begins with JAX's defaults: a context such as
    `jax.enable_x64` belongs inside the function. The first job starts when the first result is
    asked for.

    Raises:
        TrainingInterruptedError: Ctrl-C. Jobs that had not started never will.
    """
    pool = ThreadPoolExecutor(num_threads)
    try:
        for future in [pool.submit(function, job) for job in jobs]:
            yield future.result()
    except KeyboardInterrupt:
        raise TrainingInterruptedError(
            "Stopped by Ctrl-C, without results. A compiled program cannot be stopped: the "
            "process ends when those running are done."
        ) from None
    finally:
        # Without waiting, so that an error is told at once; the interpreter waits at its exit.
        pool.shutdown(wait=False, cancel_futures=True)
