"""Copy memory: the layout, the law of lags and symbols, the memoryless loss."""

import math

import numpy as np
import pytest
import task_streams

from experiments.tasks import copy_memory, copy_memory_variable_lag

BLANK, DELIMITER = 8, 9
TASKS = {"fixed": copy_memory(7), "variable": copy_memory_variable_lag(2, 6)}
LAGS = {"fixed": [7], "variable": [2, 3, 4, 5, 6]}


def _lag(sequence):
    return int(np.flatnonzero(sequence.xs == DELIMITER)[0]) - 9


@pytest.mark.parametrize("kind", TASKS)
def test_what_was_shown_is_asked_for_after_the_delimiter(kind):
    for sequence in task_streams.sequences(TASKS[kind], per_row=10, batch=5):
        lag = _lag(sequence)
        shown = list(sequence.xs[:10])
        assert max(shown) < 8
        assert list(sequence.xs[10:]) == [BLANK] * (lag - 1) + [DELIMITER] + [BLANK] * 10
        assert list(sequence.targets) == [BLANK] * (10 + lag) + shown
        assert sequence.mask.all()


@pytest.mark.parametrize("kind", TASKS)
def test_lags_and_symbols_are_uniform(kind):
    found = task_streams.sequences(TASKS[kind], per_row=40, batch=50)
    lags = LAGS[kind]
    task_streams.assert_uniform([_lag(sequence) - lags[0] for sequence in found], len(lags))
    shown = np.array([sequence.xs[:10] for sequence in found])
    for position in range(10):
        task_streams.assert_uniform(shown[:, position], 8)
        task_streams.assert_uniform_pairs(shown[:, position], shown[:, position - 1], 8)
    task_streams.assert_uniform_pairs(shown[1:, 0], shown[:-1, 0], 8)


@pytest.mark.parametrize("kind", TASKS)
def test_memoryless_loss(kind):
    """Sure of the blanks, and of nothing else than that a symbol comes."""
    task, losses, lengths = TASKS[kind], [], []
    for sequence in task_streams.sequences(task, per_row=20, batch=50):
        probabilities = np.zeros((len(sequence.xs), task.output_size))
        asked = 10 + _lag(sequence)
        probabilities[:asked, BLANK] = 1
        probabilities[asked:, :8] = 1 / 8
        given = probabilities[np.arange(len(sequence.targets)), sequence.targets]
        losses.append(-np.log(given).sum())
        lengths.append(len(sequence.xs))
    task_streams.assert_mean_loss(losses, lengths, task.baselines["memoryless"])


def test_the_figure_of_the_paper():
    assert copy_memory(100).baselines == {"optimum": 0.0, "memoryless": 10 * math.log(8) / 120}
    assert copy_memory_variable_lag(100, 100).baselines == copy_memory(100).baselines


def test_fewer_symbols():
    for sequence in task_streams.sequences(copy_memory(5, num_recalled=2), per_row=3, batch=2):
        shown = list(sequence.xs[:2])
        assert list(sequence.xs[2:]) == [BLANK] * 4 + [DELIMITER] + [BLANK] * 2
        assert list(sequence.targets) == [BLANK] * 7 + shown
    assert copy_memory(5, 2).baselines["memoryless"] == pytest.approx(2 * math.log(8) / 9)
    assert copy_memory(5, 2).sequence_length == 9
