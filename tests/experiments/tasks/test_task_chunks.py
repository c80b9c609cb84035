"""What every task promises: chunks that tile one stream, and flags that say what continues."""

import dataclasses
import itertools
import tracemalloc

import hypothesis
import numpy as np
import pytest
import task_streams
from hypothesis import strategies as st

import artbp
from experiments.tasks import TASKS, base

# Sequences so short that a few chunks hold several.
SMALL = {
    "copy_memory": {"lag": 3},
    "copy_memory_variable_lag": {"min_lag": 1, "max_lag": 6},
    "adding": {"length": 9},
    "anbn": {"probabilities": (0.5, 0.25, 0.25)},
    "brackets": {"num_kinds": 3, "min_distance": 1, "max_distance": 6},
    "temporal_order": {"length": 12},
    "switching_tables": {"mean_duration": 5},
    "mackey_glass": {"horizon": 3},
    "digits": {"permuted": True},
}
FIXED_LENGTH = {"copy_memory": 23, "adding": 9, "digits": 64}
ENDLESS = {"brackets", "switching_tables", "mackey_glass"}
IN_BLOCKS = TASKS.keys() - {"switching_tables", "mackey_glass"}  # these have one size
FIELDS = ("xs", "targets", "resets", "mask")

every_task = pytest.mark.parametrize("name", TASKS)


def _small(name):
    return TASKS[name](**SMALL[name])


def _assert_equal(rows, expected, num_steps, batch=None):
    for field in FIELDS:
        left, right = getattr(rows, field)[:num_steps], getattr(expected, field)[:num_steps]
        np.testing.assert_array_equal(left[:, :batch], right[:, :batch], strict=True)


def test_every_task_is_under_these_tests():
    assert SMALL.keys() == TASKS.keys()


@every_task
@hypothesis.given(chunk_length=st.integers(1, 70), seed=st.integers(0, 2**40))
@hypothesis.settings(max_examples=15)
def test_chunks_tile_one_stream(name, chunk_length, seed):
    task = _small(name)
    whole = task_streams.take(task, 130, seed=seed)
    _assert_equal(task_streams.take(task, 130, seed=seed, chunk_length=chunk_length), whole, 130)


@every_task
def test_chunks_of_7_are_chunks_of_21(name):
    task = _small(name)
    sevens = task_streams.take(task, 105, seed=4, chunk_length=7)
    _assert_equal(sevens, task_streams.take(task, 105, seed=4, chunk_length=21), 105)


@pytest.mark.parametrize("name", sorted(IN_BLOCKS))
def test_the_content_does_not_depend_on_the_size_of_pieces(name, monkeypatch):
    task = _small(name)
    whole = task_streams.take(task, 130, chunk_length=13)
    monkeypatch.setattr(base, "MAX_PIECE", 4)
    _assert_equal(task_streams.take(task, 130, chunk_length=13), whole, 130)


@every_task
def test_the_seed_decides_and_rows_do_not_depend_on_the_batch(name):
    task = _small(name)
    rows = task_streams.take(task, 130, batch=5, seed=3)
    _assert_equal(task_streams.take(task, 130, batch=5, seed=3), rows, 130)
    _assert_equal(task_streams.take(task, 130, batch=2, seed=3), rows, 130, batch=2)
    assert not np.array_equal(task_streams.take(task, 130, batch=5, seed=4).xs, rows.xs)
    many = task_streams.take(task, 130, batch=50, seed=3)
    assert np.unique(many.xs, axis=1).shape[1] == 50


@every_task
@pytest.mark.parametrize("chunk_length", [1, 7, 9, 23, 46])
def test_continues_says_whether_a_row_goes_on(name, chunk_length):
    task = _small(name)
    chunks = list(itertools.islice(task.chunks(0, 2, chunk_length), 200))
    assert chunks[0].stream.resets[0].all()
    for chunk, following in itertools.pairwise(chunks):
        assert chunk.continues is not bool(following.stream.resets[0].all())
    ends = {not chunk.continues for chunk in chunks}
    length = FIXED_LENGTH.get(name)
    if name in ENDLESS:
        assert ends == {False}
        assert sum(chunk.stream.resets.sum() for chunk in chunks) == 2
    elif length is not None and chunk_length % length == 0:
        assert ends == {True}
    elif chunk_length == 1:  # sequences of two rows do end together at times
        assert ends == {False, True}


@pytest.mark.parametrize("name", FIXED_LENGTH)
def test_a_fixed_length_is_stated_and_kept(name):
    task = _small(name)
    assert task.sequence_length == FIXED_LENGTH[name]
    resets = task_streams.take(task, 200).resets
    assert np.array_equal(
        resets, (np.arange(200) % task.sequence_length == 0)[:, None] & [True] * 3
    )
    others = TASKS.keys() - FIXED_LENGTH.keys()
    assert all(TASKS[other]().sequence_length is None for other in others)


@every_task
def test_arrays_have_the_stated_shapes_dtypes_and_ranges(name):
    task = _small(name)
    for chunk in itertools.islice(task.chunks(1, 4, 30), 3):
        stream = chunk.stream
        assert isinstance(stream, artbp.Stream) and stream.num_steps == 30
        stream.check_num_steps()
        assert all(type(getattr(stream, field)) is np.ndarray for field in FIELDS)
        assert stream.resets.dtype == stream.mask.dtype == bool
        assert stream.resets.shape == stream.mask.shape == (30, 4)
        if task.symbols:
            assert stream.xs.dtype == np.int32 and stream.xs.shape == (30, 4)
            assert stream.xs.min() >= 0 and stream.xs.max() < task.input_size
        else:
            assert stream.xs.dtype == np.float32 and stream.xs.shape == (30, 4, task.input_size)
        if task.loss == "cross entropy":
            assert stream.targets.dtype == np.int32 and stream.targets.shape == (30, 4)
            assert stream.targets.min() >= 0 and stream.targets.max() < task.output_size
        else:
            assert stream.targets.dtype == np.float32
            assert stream.targets.shape == (30, 4, task.output_size)
        assert not stream.targets[~stream.mask].any()


@every_task
def test_every_symbol_and_class_occurs(name):
    task = _small(name)
    rows = task_streams.take(task, 2000)
    if task.symbols:
        assert set(rows.xs.flat) == set(range(task.input_size))
    if task.loss == "cross entropy":
        assert set(rows.targets[rows.mask]) == set(range(task.output_size))


@every_task
def test_the_default_task_has_an_optimum_below_its_other_baselines(name):
    task = TASKS[name]()
    losses = dict(task.baselines)
    optimum = losses.pop("optimum")
    assert next(iter(task.baselines)) == "optimum" and losses
    assert all(0 <= optimum < loss for loss in losses.values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.name = "other"


def test_a_chunk_is_the_callers_to_change():
    chunks = TASKS["mackey_glass"]().chunks(0, 2, 20)
    expected = task_streams.take(TASKS["mackey_glass"](), 60, batch=2)
    next(chunks).stream.xs[:] = 0
    np.testing.assert_array_equal(next(chunks).stream.xs, expected.xs[20:40])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("copy_memory", {"lag": 10**7}),
        ("copy_memory_variable_lag", {"min_lag": 10**7, "max_lag": 10**7 + 1}),
        ("adding", {"length": 10**7}),
        ("brackets", {"min_distance": 10**7, "max_distance": 10**7}),
        ("temporal_order", {"length": 10**7}),
    ],
)
def test_a_sequence_is_never_in_memory_as_a_whole(name, arguments):
    chunks = TASKS[name](**arguments).chunks(0, 2, 5000)
    tracemalloc.start()
    taken = next(chunks)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken.continues and peak < 2**20


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((-1, 2, 5), "seed = -1; expected an integer, 0 or more"),
        ((0.5, 2, 5), "seed = 0.5; expected an integer"),
        ((0, 0, 5), "batch_size = 0; expected an integer, 1 or more"),
        ((0, 2, 0), "chunk_length = 0; expected an integer, 1 or more"),
        ((0, 2, True), "chunk_length = True; expected an integer"),
    ],
)
def test_bad_chunks_are_refused_before_the_first(arguments, what):
    with pytest.raises(ValueError, match=what):
        TASKS["adding"]().chunks(*arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "what"),
    [
        ("copy_memory", {"lag": 0}, "lag = 0; expected an integer, 1 or more"),
        ("copy_memory", {"lag": 2.0}, r"lag = 2\.0; expected an integer"),
        (
            "copy_memory_variable_lag",
            {"min_lag": 9, "max_lag": 8},
            "min_lag = 9, max_lag = 8.*Swap",
        ),
        ("copy_memory_variable_lag", {"min_lag": 0}, "min_lag = 0; expected"),
        ("adding", {"length": 1}, "length = 1; expected an integer, 2 or more"),
        ("anbn", {"probabilities": ()}, r"probabilities = \(\); expected P\(n = 1\)"),
        ("anbn", {"probabilities": (0.5, 0.4)}, "sum 1. Divide them by their sum"),
        ("anbn", {"probabilities": (1.5, -0.5)}, "none negative"),
        ("anbn", {"probabilities": (float("nan"),)}, "expected P"),
        ("brackets", {"num_kinds": 1}, "num_kinds = 1; expected an integer, 2 or more"),
        ("brackets", {"num_fillers": 0}, "num_fillers = 0; expected"),
        ("brackets", {"min_distance": 0}, "min_distance = 0; expected"),
        ("brackets", {"max_distance": 3}, "min_distance = 50, max_distance = 3; expected.*Swap"),
        ("temporal_order", {"length": 9}, "length = 9; expected an integer, 10 or more"),
        ("switching_tables", {"num_symbols": 1}, "num_symbols = 1; expected"),
        ("switching_tables", {"mean_duration": 0.5}, "mean_duration = 0.5; expected.*from 1"),
        ("switching_tables", {"mean_duration": float("inf")}, "mean_duration = inf; expected"),
        ("switching_tables", {"noise": 1.1}, "noise = 1.1; expected a probability.*from 0 to 1"),
        ("switching_tables", {"noise": float("nan")}, "noise = nan; expected"),
        ("switching_tables", {"noise": "some"}, "noise = 'some'; expected"),
        ("mackey_glass", {"horizon": 0}, "horizon = 0; expected an integer, 1 or more"),
        ("digits", {"split": "validation"}, "split = 'validation'; expected 'train' or 'test'"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, what):
    with pytest.raises(ValueError, match=what):
        TASKS[name](**arguments)
