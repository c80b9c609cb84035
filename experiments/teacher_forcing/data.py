"""The Mackey-Glass series one step ahead, and the steps at which the truth is shown."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import artbp
from experiments.tasks import mackey_glass
from experiments.teacher_forcing.model import Input

# Seeds of the task: training takes the even ones.
VALIDATION_SEED = 1
TEST_SEED = 3


class Series(NamedTuple):
    """values[t] and the value after it, nexts[t]; float32 [T, B, 1]."""

    values: np.ndarray
    nexts: np.ndarray


def series(seed: int, num_rows: int, num_steps: int) -> Series:
    """Independent trajectories, one per row."""
    chunk = next(mackey_glass(horizon=1).chunks(seed, num_rows, num_steps))
    return Series(np.asarray(chunk.stream.xs), np.asarray(chunk.stream.targets))


def shown(num_steps: int, num_rows: int, *, truth_steps: int, free_steps: int) -> np.ndarray:
    """Where the truth is shown, bool [T, B]: `truth_steps` steps, then not for `free_steps`, ...

    Rows are shifted against each other by equal parts of the period, so that every update sees
    all ages of a free run. All rows begin with `truth_steps` steps of truth. free_steps = 0:
    teacher forcing.
    """
    period = truth_steps + free_steps
    steps, rows = np.arange(num_steps)[:, None], np.arange(num_rows)[None, :]
    phase = (steps + rows * period // num_rows) % period
    return (phase < truth_steps) | (steps < truth_steps)


def training_stream(given: Series, *, truth_steps: int, free_steps: int) -> artbp.Stream:
    """The stream of one arm. Every step counts, whether the truth was shown or not."""
    num_steps, num_rows, _ = given.values.shape
    visible = shown(num_steps, num_rows, truth_steps=truth_steps, free_steps=free_steps)
    return artbp.Stream(Input(given.values, visible), given.nexts)
