"""Temporal order: the numbers of the paper, and what is left with less memory."""

import math

import numpy as np
import pytest
import task_streams

from experiments.tasks import temporal_order

X, Y, START, END = 4, 5, 6, 7


def _relevant(sequence):
    """The steps of X and Y."""
    return np.flatnonzero((sequence.xs == X) | (sequence.xs == Y))


@pytest.mark.parametrize("length", [10, 100])
def test_the_class_is_the_order_of_the_two_symbols(length):
    for sequence in task_streams.sequences(temporal_order(length), per_row=15, batch=4):
        last = len(sequence.xs) - 1
        first, second = _relevant(sequence)
        assert list(np.flatnonzero(sequence.mask)) == [last]
        classes = [(X, X), (X, Y), (Y, X), (Y, Y)]
        expected = classes.index((sequence.xs[first], sequence.xs[second]))
        assert sequence.targets[last] == expected
        assert sequence.xs[0] == START and sequence.xs[last] == END
        assert set(np.delete(sequence.xs, [0, first, second, last])) <= {0, 1, 2, 3}


def test_lengths_and_places_are_those_of_the_paper():
    found = task_streams.sequences(temporal_order(100), per_row=25, batch=40)
    relevant = np.array([_relevant(sequence) for sequence in found])
    task_streams.assert_uniform([len(sequence.xs) - 100 for sequence in found], 11)
    task_streams.assert_uniform(relevant[:, 0] - 10, 11)
    task_streams.assert_uniform(relevant[:, 1] - 50, 11)


def test_classes_are_uniform_and_noise_tells_nothing():
    """So that the memoryless loss is ln 4."""
    found = task_streams.sequences(temporal_order(10), per_row=100, batch=40)
    classes = np.array([sequence.targets[-1] for sequence in found])
    task_streams.assert_uniform_pairs(classes[1:], classes[:-1], 4)
    task_streams.assert_uniform_pairs(classes, [sequence.xs[-2] for sequence in found], 4)
    task_streams.assert_uniform_pairs(*np.array([sequence.xs[-3:-1] for sequence in found]).T, 4)


def test_losses_of_predictors_with_less_memory():
    """P(class | what is remembered), counted on one stream and scored on another."""
    task = temporal_order(10)
    remembered = {
        "memoryless": lambda sequence: 0,
        "one symbol": lambda sequence: sequence.xs[_relevant(sequence)[1]] - X,
    }
    fitting, scoring = (task_streams.sequences(task, 50, batch=40, seed=seed) for seed in (1, 2))
    for name, memory in remembered.items():
        joint = np.zeros((2, 4))
        for sequence in fitting:
            joint[memory(sequence), sequence.targets[-1]] += 1
        given = [joint[memory(sequence)] for sequence in scoring]
        chances = [
            counts[sequence.targets[-1]] / counts.sum()
            for counts, sequence in zip(given, scoring, strict=True)
        ]
        counts = [sequence.mask.sum() for sequence in scoring]
        task_streams.assert_mean_loss(-np.log(chances), counts, task.baselines[name])
    assert task.baselines["memoryless"] == math.log(4)
