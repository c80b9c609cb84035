"""aⁿbⁿ: the strings, their law, and both losses by enumeration of n."""

import math

import numpy as np
import pytest
import scipy.stats
import task_streams

from experiments.tasks import anbn

A, B, SEPARATOR = 0, 1, 2
LAWS = [(0.1,) * 10, (0.2, 0.0, 0.5, 0.3), (1.0,), (0.0, 0.0, 1.0), (0.5, 0.5)]


def _string(n):
    """The inputs and targets of one string."""
    symbols = [SEPARATOR, *[A] * n, *[B] * n, SEPARATOR]
    return symbols[:-1], symbols[1:]


def _mean_loss(law, loss_of_string):
    """Σ P(n) · loss(n) / Σ P(n) · steps(n)."""
    numbers = range(1, len(law) + 1)
    steps = sum(p * (2 * n + 1) for n, p in zip(numbers, law, strict=True))
    return sum(p * loss_of_string(n) for n, p in zip(numbers, law, strict=True) if p) / steps


def test_streams_hold_strings_of_the_language():
    found = task_streams.sequences(anbn(LAWS[1]), per_row=20, batch=5)
    for sequence in found:
        n = np.count_nonzero(sequence.xs == A)
        assert (list(sequence.xs), list(sequence.targets)) == _string(n)
        assert sequence.mask.all()


def test_n_follows_the_law():
    law = LAWS[1]
    found = task_streams.sequences(anbn(law), per_row=50, batch=50)
    numbers = [len(sequence.xs) // 2 for sequence in found]
    counts = np.bincount(numbers, minlength=5)
    assert len(counts) == 5 and counts[0] == counts[2] == 0
    expected = np.array(law)[[0, 2, 3]] * len(numbers)
    assert scipy.stats.chisquare(counts[[1, 3, 4]], expected).pvalue > task_streams.FALSE_ALARM


@pytest.mark.parametrize("law", LAWS)
def test_the_optimum_is_the_loss_of_one_who_counts_and_knows_the_law(law):
    def loss(n):
        inputs, targets = _string(n)
        total, num_a, num_b = 0.0, 0, 0
        for symbol, target in zip(inputs, targets, strict=True):
            num_a += symbol == A
            num_b += symbol == B
            if symbol == A:  # does the string go on to a longer one?
                reached, longer = sum(law[num_a - 1 :]), sum(law[num_a:])
                chance = longer / reached
                total -= math.log(chance if target == A else 1 - chance)
            else:  # the rest is certain
                certain = A if symbol == SEPARATOR else B if num_b < num_a else SEPARATOR
                assert target == certain
        return total

    assert math.isclose(_mean_loss(law, loss), anbn(law).baselines["optimum"], abs_tol=1e-12)


@pytest.mark.parametrize("law", LAWS)
def test_memoryless_is_the_entropy_of_the_next_symbol_given_the_present_one(law):
    joint = np.zeros((3, 3))
    for n, probability in enumerate(law, start=1):
        np.add.at(joint, _string(n), probability)
    conditional = joint / joint.sum(axis=1, keepdims=True)

    def loss(n):
        return -sum(math.log(conditional[pair]) for pair in zip(*_string(n), strict=True))

    assert math.isclose(_mean_loss(law, loss), anbn(law).baselines["memoryless"], abs_tol=1e-12)


def test_losses_by_hand():
    baselines = anbn((0.5, 0.5)).baselines
    assert math.isclose(baselines["optimum"], math.log(2) / 4)
    two_thirds = math.log(3) - 2 / 3 * math.log(2)
    assert math.isclose(baselines["memoryless"], 3 * two_thirds / 4)


def test_losses_on_a_stream():
    """As above, on what the task generates: a check on the law and on the steps that count."""
    law, task = LAWS[1], anbn(LAWS[1])
    found = task_streams.sequences(task, per_row=100, batch=50)
    numbers = np.array([len(sequence.xs) // 2 for sequence in found])
    steps = [sequence.mask.sum() for sequence in found]
    surprises = -np.log(np.array(law)[numbers - 1])
    task_streams.assert_mean_loss(surprises, steps, task.baselines["optimum"])
    turn = 1 / 2.9  # one a in so many is the last of its string
    losses = -2 * (np.log(turn) + (numbers - 1) * np.log(1 - turn))
    task_streams.assert_mean_loss(losses, steps, task.baselines["memoryless"])
