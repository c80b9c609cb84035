"""Distant brackets: the text, the steps that count, and what the closing bracket depends on."""

import math

import numpy as np
import task_streams

from experiments.tasks import brackets

KINDS, FILLERS = 3, 2
TASK = brackets(num_kinds=KINDS, min_distance=2, max_distance=5, num_fillers=FILLERS)


def _pairs(num_steps=600, batch=20):
    """(kind, distance, fillers, targets, mask) of the complete pairs of all rows, row by row."""
    rows = task_streams.take(TASK, num_steps, batch)
    found = []
    for xs, targets, mask in zip(rows.xs.T, rows.targets.T, rows.mask.T, strict=True):
        start = 0
        closings = np.flatnonzero((xs >= KINDS) & (xs < 2 * KINDS))
        for closing in closings:
            assert xs[start] < KINDS and xs[closing] == KINDS + xs[start]
            pair = slice(start, closing + 1)
            fillers = xs[start + 1 : closing] - 2 * KINDS
            found.append((xs[start], len(fillers), fillers, targets[pair], mask[pair]))
            start = closing + 1
    return found


def test_the_closing_bracket_is_asked_for_at_the_last_filler():
    for kind, distance, fillers, targets, mask in _pairs():
        assert fillers.min() >= 0
        assert list(mask) == [False] * distance + [True, False]
        assert targets[distance] == kind


def test_kinds_distances_and_fillers_are_uniform_and_independent():
    """So that nothing but the opening bracket tells: the memoryless loss is ln 3."""
    found = _pairs()
    kinds = np.array([pair[0] for pair in found])
    task_streams.assert_uniform([pair[1] - 2 for pair in found], 4)
    task_streams.assert_uniform(np.concatenate([pair[2] for pair in found]), FILLERS)
    task_streams.assert_uniform_pairs(kinds[1:], kinds[:-1], KINDS)
    last_fillers = np.array([pair[2][-1] for pair in found])
    task_streams.assert_uniform(kinds * FILLERS + last_fillers, KINDS * FILLERS)
    kinds_and_distances = [pair[0] * 4 + pair[1] - 2 for pair in found]
    task_streams.assert_uniform(kinds_and_distances, KINDS * 4)
    assert TASK.baselines == {"optimum": 0.0, "memoryless": math.log(KINDS)}


def test_memoryless_loss_of_a_predictor_fitted_elsewhere():
    """P(kind | last filler), counted on one stream and scored on another."""

    def counted(seed):
        rows = task_streams.take(TASK, 600, batch=50, seed=seed)
        return rows.xs - 2 * KINDS, rows.targets, rows.mask

    fillers, targets, mask = counted(1)
    joint = np.zeros((FILLERS, KINDS))
    np.add.at(joint, (fillers[mask], targets[mask]), 1)
    conditional = joint / joint.sum(axis=1, keepdims=True)
    fillers, targets, mask = counted(2)
    losses = np.zeros(mask.shape)
    losses[mask] = -np.log(conditional[fillers[mask], targets[mask]])
    task_streams.assert_mean_loss(losses.sum(0), mask.sum(0), TASK.baselines["memoryless"])
