"""The experiment at a tiny size: what it writes, and what it says."""

import json
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import workdirs
from scipy import stats

from experiments.common.arms import tbptt_k1_k2
from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.common.metrics import read_metrics
from experiments.common.report import interval, markdown_table
from experiments.common.tuning import Choice
from experiments.k1k2 import __main__ as experiment
from experiments.k1k2 import training
from experiments.k1k2.__main__ import STUDY
from experiments.k1k2.config import MODES, arms
from experiments.k1k2.report import columns, make_rows
from experiments.k1k2.training import (
    Runs,
    Texts,
    last_quarter,
    read_texts,
    seconds_per_update,
)
from experiments.ptb.data import Corpus, DataError, Vocabulary
from experiments.ptb.found_text import FoundText

CONFIG = Path(__file__).parents[3] / "configs" / "k1k2" / "default.py"
TINY = (
    "num_tuning_runs=2",
    "num_seeds=2",
    "num_steps=48",
    "batch=2",
    "hidden_size=4",
    "k1=2",
    "k2=3",
    "k1_sweep=(2,)",
    "k2_sweep=(3,)",
    "learning_rates=(1e-2, 3e-2)",
    "num_bins=4",
    "held_out_steps=20",
    "timing_rounds=1",
    "timing_steps=8",
)


# Seconds of an update in each round. Medians of ratios to the first arm: 1, 2, 5/3, 1/3, ...
TIMES = np.array([[3.0, 9, 5, 1, 1, 1], [2, 4, 3, 1, 1, 1], [4, 4, 8, 1, 1, 1]])


@pytest.fixture(autouse=True)
def without_penn_treebank(monkeypatch):
    monkeypatch.delenv("ARTBP_DATA_DIR", raising=False)


def load(*overrides):
    return load_config(STUDY.default_config(), CONFIG, (*TINY, *overrides))


def run(workdir, *overrides):
    STUDY.main(load(*overrides), CommandLine(workdir, False, False, None))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run; its times are made up, because each arm to time is one more program to compile."""
    workdir = tmp_path_factory.mktemp("k1k2") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ARTBP_DATA_DIR", raising=False)
        patch.setattr(experiment, "seconds_per_update", lambda config, texts, arms: TIMES)
        run(workdir)
    return workdir


def test_writes_its_files(finished):
    files = workdirs.FILES | {"k1k2.png", "k1k2.svg"}
    assert {path.name for path in finished.iterdir()} == files
    rows = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    found = [tbptt_k1_k2(row["k1"], row["k2"], row["mode"]) for row in rows]
    assert found == arms(load())
    assert len(found) == 6
    metrics = read_metrics(finished / "metrics.jsonl")
    assert [tbptt_k1_k2(row["k1"], row["k2"], row["mode"]) for row in metrics] == found
    for row in rows:
        assert row["text"] == "generated text"
        assert row["num_updates"] == 48 // row["k1"]
        assert len(row["last_quarter_bits"]) == len(row["held_out_bits"]) == 2
        assert min(row["tuning_bits"].values()) > 0
        best = min(row["tuning_bits"], key=row["tuning_bits"].get)
        assert row["learning_rate"] == float(best)
        assert row["rate_at_edge"]  # there are two rates
    assert [row["seconds_per_update"] for row in rows] == pytest.approx([3, 6, 5, 1, 1, 1])
    assert [row["seconds"] for row in rows] == pytest.approx([72, 144, 120, 48, 48, 48])
    assert [row["time_ratio"] for row in rows[:3]] == pytest.approx([1, 2, 5 / 3])
    for row in rows:
        assert row["equal_time_seconds"] == pytest.approx(48)
        share = 48 / row["seconds"]  # of its curve, when the fastest arm has finished
        assert row["equal_time_bits"] == pytest.approx(
            row["curve_bits"][min(int(4 * share), 3)], abs=1e-4
        )
    losses = np.array([row["last_quarter_bits"] for row in rows])
    for row, difference in zip(rows, losses - losses[0], strict=True):
        assert row["difference"] == pytest.approx(difference.mean(), abs=1e-12)


def test_modes_are_the_same_at_one_and_differ_beyond(finished):
    rows = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    for pair in ((1, 1), (2, 3)):
        curves = [row["tuning_bits"] for row in rows if (row["k1"], row["k2"]) == pair]
        assert len(curves) == 3
        pairs = [(curves[0], curves[1]), (curves[0], curves[2]), (curves[1], curves[2])]
        assert all((first == second) == (pair == (1, 1)) for first, second in pairs)
    table = (finished / "table.md").read_text(encoding="utf-8")
    assert "At k1 = k2 = 1 the largest difference between modes" in table
    assert "is 0 bits" in table


def test_seconds_per_update_is_measured_for_every_round():
    config = load("timing_rounds=2")
    seconds = seconds_per_update(config, read_texts(config), [tbptt_k1_k2(4, 3)])
    assert seconds.shape == (2, 1)
    assert (seconds > 0).all()


def test_texts_of_runs_do_not_overlap():
    texts = read_texts(load())
    assert [xs.shape for xs, _ in texts.runs] == [(48, 2)] * 4
    for xs, targets in texts.runs:
        np.testing.assert_array_equal(xs[1:], targets[:-1])
    for (_, targets), (xs, _) in zip(texts.runs, texts.runs[1:], strict=False):
        np.testing.assert_array_equal(targets[-1], xs[0])  # one goes on where the other ends
    assert texts.held_out[0].shape == (20, 2)


def made_up_text():
    """A text whose symbols say which split they are of."""
    splits = {name: np.full(1000, i, np.int32) for i, name in enumerate(("train", "valid", "test"))}
    return FoundText(Corpus(Vocabulary("abc"), **splits), is_generated=True)


def test_held_out_text_is_of_the_validation_split(monkeypatch):
    monkeypatch.setattr(training, "find_text", lambda *given: made_up_text())
    texts = read_texts(load())
    assert all((part == 0).all() for run in texts.runs for part in run)
    assert all((part == 1).all() for part in texts.held_out)


def test_learning_rates_are_chosen_by_the_end_of_runs_that_are_not_reported(monkeypatch):
    """With a stub in place of training, whose losses say which run it was given.

    The losses of a run: 100 · rate, the symbol of its text, 0, its first weight − 10 · rate.
    """

    def train_whole(estimator, optimizer, rate, params, carry, stream, key, *, edges):
        loss = jnp.stack([100 * rate, stream.xs[0, 0].astype(float), 0.0, params - 10 * rate])
        return types.SimpleNamespace(params=params, loss=loss, num_updates=jnp.array(7))

    model = types.SimpleNamespace(
        cell=None,
        initial_carry=lambda params, batch: None,
        loss_fn=lambda params, ys, targets: params,
    )
    monkeypatch.setattr(training, "train_whole", train_whole)
    monkeypatch.setattr(training, "character_model", lambda *sizes: model)
    monkeypatch.setattr(training, "make_estimator", lambda *arguments: None)
    monkeypatch.setattr(training, "bits", lambda nats: nats)
    monkeypatch.setattr(training.artbp, "unroll", lambda *arguments: (None, None))
    slices = [(np.full((48, 2), i), np.full((48, 2), i)) for i in range(5)]
    first_params = np.array([1.0, 2.0, 10.0, 20.0, 30.0])
    arm = tbptt_k1_k2(1, 3)
    texts = Texts(made_up_text(), slices, slices[0])
    runs = training.train_arm(load("num_seeds=3"), texts, arm, first_params)
    np.testing.assert_allclose(runs.choice.scores, [1.4, 1.2], rtol=1e-6)
    assert runs.choice.rate == 3e-2
    np.testing.assert_array_equal(runs.curves[:, 1], [2, 3, 4])  # runs 0 and 1 are to tune on
    np.testing.assert_array_equal(runs.held_out, [10, 20, 30])
    np.testing.assert_allclose(runs.last_quarter, np.array([10, 20, 30]) - 0.3, rtol=1e-6)


def test_the_last_quarter_and_the_first_tenth():
    np.testing.assert_array_equal(last_quarter(np.arange(16.0).reshape(2, 8)), [6.5, 14.5])
    config = load("num_bins=20")
    curves = np.zeros((2, 20))
    curves[:, :3] = [[1, 3, 100], [2, 4, 100]]
    other, choice = np.zeros(2), Choice(1e-2, 0, True, (0.0, 0.0))
    trained = [
        Runs(tbptt_k1_k2(2, 3, mode), choice, bits, other, 24)
        for mode, bits in (("stored", np.zeros((2, 20))), ("reforward", curves))
    ]
    rows = make_rows(config, "", trained, np.ones((1, 2)))
    assert rows[1]["early_difference"] == interval(np.array([2.0, 3.0]))  # two bins of twenty
    assert rows[1]["difference"] == 0


def test_a_run_that_diverged_is_not_finite_in_every_column():
    config, choice = load("num_bins=4"), Choice(1e-2, 0, True, (0.0, 0.0))
    trained = [
        Runs(tbptt_k1_k2(2, 3, mode), choice, np.stack([bits, bits]), held_out, 24)
        for mode, bits, held_out in (
            ("stored", np.ones(4), np.ones(2)),
            ("reforward", np.full(4, np.nan), np.full(2, np.inf)),
        )
    ]
    rows = make_rows(config, "", trained, np.ones((1, 2)))
    base, diverged = markdown_table(rows, columns(config)).splitlines()[2:]
    assert "nan" not in diverged and diverged.count("not finite") == 5
    assert "not finite" not in base


def test_the_default_fits_into_the_generated_text():
    texts = read_texts(load_config(STUDY.default_config(), CONFIG))
    assert texts.found.is_generated
    assert (
        len(texts.runs) == STUDY.default_config().num_tuning_runs + STUDY.default_config().num_seeds
    )


def test_a_folder_that_is_named_is_used(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"ptb\.train\.txt"):
        read_texts(load(f"data_dir={str(tmp_path)!r}"))
    monkeypatch.setenv("ARTBP_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"ptb\.train\.txt"):
        read_texts(load())


def test_every_arm_is_there_once():
    found = arms(load_config(STUDY.default_config(), CONFIG))
    assert len(found) == len(set(found)) == 13
    assert set(found[:3]) == {tbptt_k1_k2(1, 16, mode) for mode in MODES}


def test_the_interval_is_that_of_a_paired_t_test():
    values = np.random.default_rng(0).normal(1.0, 2.0, 6)
    mean, half_width = interval(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose((mean - half_width, mean + half_width), (low, high))
