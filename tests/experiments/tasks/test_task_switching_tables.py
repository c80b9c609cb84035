"""Switching tables: seen from outside, by a batch large enough to show the table at each step."""

import itertools
import math

import numpy as np
import pytest
import task_streams

from experiments.tasks import switching_tables

K, NOISE = 3, 0.2
PERMUTATIONS = list(itertools.permutations(range(K)))


def _tables(rows, num_symbols=K):
    """The most frequent successor of each symbol at each step, over all rows: [T, K]."""
    counts = np.zeros((len(rows.xs), num_symbols, num_symbols))
    steps = np.arange(len(rows.xs))[:, None]
    np.add.at(counts, (np.broadcast_to(steps, rows.xs.shape), rows.xs, rows.targets), 1)
    return counts.argmax(axis=-1)


@pytest.fixture(scope="module")
def observed():
    """(task, rows, tables): 256 rows, where each symbol is seen 85 times at every step."""
    task = switching_tables(K, mean_duration=10, noise=NOISE)
    rows = task_streams.take(task, 2000, batch=256)
    return task, rows, _tables(rows)


def test_targets_are_the_next_inputs(observed):
    _, rows, _ = observed
    np.testing.assert_array_equal(rows.targets[:-1], rows.xs[1:])
    assert rows.mask.all()


def test_without_noise_every_row_follows_one_permutation():
    rows = task_streams.take(switching_tables(K, 5, noise=0), 300, batch=200)
    tables = _tables(rows)
    assert (np.sort(tables, axis=-1) == np.arange(K)).all()
    np.testing.assert_array_equal(np.take_along_axis(tables, rows.xs, axis=1), rows.targets)


def test_tables_switch_at_the_stated_rate_to_any_other():
    rows = task_streams.take(switching_tables(K, mean_duration=2, noise=0), 10_000, batch=48)
    tables = _tables(rows)
    changed = (tables[1:] != tables[:-1]).any(axis=1)
    chance = (1 - 1 / len(PERMUTATIONS)) / 2
    error = math.sqrt(chance * (1 - chance) / len(changed))
    assert 5 * error < 0.1 * chance, "too few data for this resolution"
    assert abs(changed.mean() - chance) < 5 * error
    switched = [PERMUTATIONS.index(tuple(table)) for table in tables[1:][changed]]
    task_streams.assert_uniform(switched, len(PERMUTATIONS))


def test_the_optimum_is_the_loss_of_one_who_knows_the_table(observed):
    task, rows, tables = observed
    follows = np.take_along_axis(tables, rows.xs, axis=1) == rows.targets
    losses = -np.log(np.where(follows, 1 - NOISE + NOISE / K, NOISE / K))
    counts = rows.mask.sum(axis=0)
    task_streams.assert_mean_loss(losses.sum(axis=0), counts, task.baselines["optimum"])
    by_hand = -(13 / 15 * math.log(13 / 15) + 2 / 15 * math.log(1 / 15))
    assert math.isclose(task.baselines["optimum"], by_hand)


def test_the_stationary_law_is_uniform():
    """A new table at each step: a symbol then says nothing about the next one."""
    task = switching_tables(K, mean_duration=1, noise=0)
    rows = [task_streams.take(task, 20, batch=1, seed=seed) for seed in range(100)]
    pairs = [(row.xs[:, 0], row.targets[:, 0]) for row in rows]
    task_streams.assert_uniform_pairs(*np.concatenate(pairs, axis=1), K)
    assert task.baselines["stationary"] == math.log(K)
    noisy = switching_tables(K, mean_duration=50, noise=1).baselines
    assert math.isclose(noisy["optimum"], noisy["stationary"])


def _counting_loss(rows, update_every, keep, num_symbols):
    """Mean loss of transition frequencies, fading by `keep` a step, seen every few steps only."""
    counts = np.full((num_symbols, num_symbols), 1 / num_symbols)
    seen, losses = np.zeros_like(counts), []
    for step, (xs, targets) in enumerate(zip(rows.xs, rows.targets, strict=True)):
        if step % update_every == 0:
            counts = counts * keep**update_every + seen
            seen = np.zeros_like(counts)
        smoothed = counts + 0.1
        chances = smoothed / smoothed.sum(axis=1, keepdims=True)
        losses.append(-np.log(chances[xs, targets]).mean())
        np.add.at(seen, (xs, targets), 1)
    return np.mean(losses)


def test_quick_updates_win():
    """What the task is for: the oftener updated, the better, between the two baselines."""
    task = switching_tables(mean_duration=50)
    rows = task_streams.take(task, 3000, batch=16)
    every = {k: _counting_loss(rows, k, keep=0.8, num_symbols=8) for k in (1, 10, 40)}
    never_forgets = _counting_loss(rows, 1, keep=1.0, num_symbols=8)
    assert task.baselines["optimum"] < every[1] < every[10] - 0.1 < every[40] - 0.2
    assert every[10] < task.baselines["stationary"] - 0.1
    assert abs(never_forgets - task.baselines["stationary"]) < 0.2
