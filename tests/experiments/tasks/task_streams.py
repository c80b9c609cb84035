"""Streams taken from tasks, whole sequences cut out of them, and tests on their statistics."""

import itertools
from typing import NamedTuple

import numpy as np
import scipy.stats

# As likely as five standard errors on both sides of a normal law.
FALSE_ALARM = 6e-7


class Rows(NamedTuple):
    """The arrays of a stream, time first, and whether each chunk was continued by the next."""

    xs: np.ndarray
    targets: np.ndarray
    resets: np.ndarray
    mask: np.ndarray
    continues: list


class Sequence(NamedTuple):
    """One sequence of one row."""

    xs: np.ndarray
    targets: np.ndarray
    mask: np.ndarray


def take(task, num_steps, batch=3, seed=0, chunk_length=None):
    """The first `num_steps` steps or a few more: whole chunks, one after the other."""
    chunk_length = chunk_length or num_steps
    chunks = task.chunks(seed, batch, chunk_length)
    taken = list(itertools.islice(chunks, -(-num_steps // chunk_length)))
    arrays = [
        np.concatenate([getattr(chunk.stream, field) for chunk in taken])
        for field in ("xs", "targets", "resets", "mask")
    ]
    return Rows(*arrays, [chunk.continues for chunk in taken])


def sequences(task, per_row, batch, seed=0):
    """The first `per_row` sequences of each row: not those that fit a window, which are short."""
    rows = take(task, 500, batch, seed)
    while rows.resets.sum(axis=0).min() <= per_row:
        rows = take(task, 2 * len(rows.xs), batch, seed)
    found = []
    for row in range(batch):
        starts = np.flatnonzero(rows.resets[:, row])
        assert starts[0] == 0
        for start, stop in itertools.pairwise(starts[: per_row + 1]):
            arrays = (rows.xs, rows.targets, rows.mask)
            found.append(Sequence(*(array[start:stop, row] for array in arrays)))
    return found


def assert_mean_loss(losses, counts, expected, resolution=0.05):
    """Σ losses / Σ counts is `expected`, within five standard errors.

    Args:
      losses, counts: summed losses and counted steps of independent parts, [n].
      resolution: the five standard errors must be less than this fraction of `expected`, else the
        test could not see an error of that size.
    """
    losses, counts = np.asarray(losses, np.float64), np.asarray(counts, np.float64)
    errors = losses - expected * counts
    allowed = 5 * errors.std(ddof=1) / np.sqrt(len(errors))
    assert allowed < resolution * expected * counts.mean(), "too few data for this resolution"
    assert abs(errors.mean()) <= allowed + 1e-9 * counts.mean()


def assert_uniform(values, num_values):
    """Integers in [0, num_values) that are independent and uniform, by a chi-squared test."""
    values = np.asarray(values).reshape(-1)
    counts = np.bincount(values, minlength=num_values)
    assert len(counts) == num_values, f"a value beyond {num_values - 1}"
    assert len(values) >= 20 * num_values, "too few data"
    if num_values == 1:
        return
    assert scipy.stats.chisquare(counts).pvalue > FALSE_ALARM, counts


def assert_uniform_pairs(first, second, num_values):
    """Two rows of integers in [0, num_values), uniform and independent of each other."""
    assert_uniform(np.asarray(first) * num_values + np.asarray(second), num_values**2)
