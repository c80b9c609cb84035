"""The adding problem: marks, sums, and the loss of always predicting 1."""

import numpy as np
import pytest
import task_streams

from experiments.tasks import adding


@pytest.mark.parametrize("length", [2, 9, 10])
def test_the_target_is_the_sum_of_the_marked_numbers(length):
    for sequence in task_streams.sequences(adding(length), per_row=20, batch=5):
        numbers, marks = sequence.xs.T
        assert set(marks) <= {0, 1} and marks.sum() == 2
        assert marks[: length // 2].sum() == marks[length // 2 :].sum() == 1
        assert numbers.min() >= 0 and numbers.max() < 1
        assert list(sequence.mask) == [False] * (length - 1) + [True]
        first, second = numbers[marks == 1]
        assert sequence.targets[-1, 0] == first + second


def test_marks_are_uniform_on_their_halves():
    found = task_streams.sequences(adding(9), per_row=40, batch=50)
    marks = np.array([np.flatnonzero(sequence.xs[:, 1]) for sequence in found])
    task_streams.assert_uniform(marks[:, 0], 4)
    task_streams.assert_uniform(marks[:, 1] - 4, 5)
    even = task_streams.sequences(adding(8), per_row=40, batch=50)
    marks = np.array([np.flatnonzero(sequence.xs[:, 1]) for sequence in even])
    task_streams.assert_uniform_pairs(marks[:, 0], marks[:, 1] - 4, 4)


def test_loss_of_the_constant():
    task = adding(2)
    found = task_streams.sequences(task, per_row=200, batch=120)
    targets = np.array([sequence.targets[-1, 0] for sequence in found], np.float64)
    counts = [sequence.mask.sum() for sequence in found]
    task_streams.assert_mean_loss((targets - 1) ** 2, counts, task.baselines["constant"])
    # No constant is better: the mean is 1.
    task_streams.assert_mean_loss(targets, counts, 1.0)
