"""From a configuration to trained runs, two methods at a time.

XLA leaves small loops to one core, so methods are spread over threads: JAX lets go of Python's
lock while a program compiles or runs.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import artbp
from experiments.common.errors import TrainingInterruptedError
from experiments.influence_balancing import training
from experiments.influence_balancing.methods import Method


@dataclass(frozen=True)
class Run:
    """A method trained on a set of rows.

    Attributes:
        method: what was trained.
        num_rows: the number R of runs in `history`.
        num_steps: time steps of each run.
        edges: [bins + 1] time steps that bound the bins of `history`.
        history: see `training.History`.
        timing: see `training.Timing`.
    """

    method: Method
    num_rows: int
    num_steps: int
    edges: np.ndarray
    history: training.History
    timing: training.Timing

    @property
    def steps_per_second(self) -> float:
        """Time steps of all rows together per second of running, compilation left out."""
        return self.num_rows * self.num_steps / self.timing.run_seconds


def train_all(
    config: Any,
    methods: Sequence[Method],
    *,
    eta_0: tuple[float, ...],
    schedules: tuple[str, ...],
    describe: Callable[[Run], str],
    say: Callable[[str], None],
) -> list[Run]:
    """Trains every method on all combinations of schedules, rates and keys.

    All methods are given the same keys, so that two with the same law cut at the same steps.
    Where a method has no randomness, one key stands for all.

    Args:
        config: of the study.
        methods: what to train.
        eta_0, schedules: the learning rates.
        describe: what became of a run, in a few words.
        say: is given a line for each method that has finished.

    Returns:
        In the order of `methods`; rows ordered as in `training.make_rows`.

    Raises:
        TrainingInterruptedError: Ctrl-C. Methods that had not started never will.
    """

    def train(method: Method) -> Run:
        return _train(config, method, eta_0, schedules)

    say(f"Training {len(methods)} methods, at most {config.num_threads} at a time.")
    # The random methods take the longest: first, so that no thread is left with one at the end.
    order = sorted(range(len(methods)), key=lambda i: not methods[i].is_random)
    num_finished = 0
    pool = ThreadPoolExecutor(config.num_threads)
    try:
        futures = {i: pool.submit(train, methods[i]) for i in order}
        for future in as_completed(futures.values()):
            run = future.result()
            num_finished += 1
            seconds = run.timing.compile_seconds + run.timing.run_seconds
            say(
                f"[{num_finished}/{len(methods)}] {run.method.label}: {describe(run)}; "
                f"{seconds:.0f} s"
            )
        return [futures[i].result() for i in range(len(methods))]
    except KeyboardInterrupt:
        raise TrainingInterruptedError(
            f"Stopped by Ctrl-C after {num_finished} of {len(methods)} methods, without results. "
            "A compiled program cannot be stopped: the process ends when those running are done."
        ) from None
    finally:
        # Without waiting, so that an error is told at once; the interpreter waits at its exit.
        pool.shutdown(wait=False, cancel_futures=True)


def _train(
    config: Any, method: Method, eta_0: tuple[float, ...], schedules: tuple[str, ...]
) -> Run:
    with jax.enable_x64(True):
        per_key = method.is_random or config.drive_noise > 0
        boundary_root, drive_root = jax.random.split(jax.random.key(config.seed))
        keys = jax.random.split(boundary_root, config.num_keys)[: None if per_key else 1]
        rows = training.make_rows(keys, eta_0, schedules)
        num_rows = len(rows.eta_0)
        if config.loss_at == "unroll end":
            period = int(method.unroll_length)
            num_steps = config.num_unrolls * period
            edges = training.log_bins(config.num_unrolls, config.num_bins) * period
            mask = np.arange(1, num_steps + 1) % period == 0
            stream = artbp.Stream(None, mask=mask, num_steps=num_steps)
        else:
            num_steps = config.num_steps
            edges = training.log_bins(num_steps, config.num_bins)
            stream = artbp.Stream(_drives(config, drive_root), num_steps=num_steps)
        history, timing = training.train(
            method,
            rows,
            stream,
            theta_0=config.theta_0,
            edges=edges,
            drive_is_per_row=stream.xs is not None,
        )
    return Run(method, num_rows, num_steps, edges, history, timing)


def _drives(config: Any, rng_key: jax.Array) -> jax.Array | None:
    """x_t = 1 + σ ε_t for each key, [R, T]; None for a drive without noise."""
    if not config.drive_noise > 0:
        return None
    noise = jax.random.normal(rng_key, (config.num_keys, config.num_steps))
    return 1.0 + config.drive_noise * noise
