"""Outcomes of trainings, and the whole experiment at a tiny size."""

import json
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import workdirs
from matplotlib.figure import Figure

from experiments.common.arms import parse
from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.common.metrics import read_metrics
from experiments.common.report import select
from experiments.stability import figure, report, system, training
from experiments.stability.__main__ import STUDY
from experiments.stability.config import trained
from experiments.stability.system import Clip

CONFIGS = Path(__file__).parents[3] / "configs" / "stability"
ARTBP = "artbp(4, alpha=4)"
ARMS = ("bptt(12)", "tbptt(4)", ARTBP, "artbp(4, law='geometric')")
TRAINED = ("tbptt(4)", "bptt(12)", "bptt(12) clipped by norm")
TRAINED += (ARTBP, f"{ARTBP} clipped by norm", f"{ARTBP} clipped by value")
TINY = (
    f"arms={ARMS}",
    f"trained={TRAINED}",
    f"clipped_arm={ARTBP}",
    "spectral_radii=(0.8, 1.5)",
    "hidden_size=4",
    "num_rows=2",
    "sequence_length=12",
    "num_norm_draws=3",
    "num_sequences=30",
    "learning_rates=(0.01, 1e3)",
    "num_seeds=2",
    "num_tuning_runs=1",
    "bound_updates=5",
    "bound_points=3",
    "clip_bounds=(0.1, 1.0)",
    "num_bias_keys=3",
)


def tiny_config(*overrides):
    return load_config(STUDY.default_config(), CONFIGS / "default.py", (*TINY, *overrides))


def run(workdir, *overrides):
    STUDY.main(tiny_config(*overrides), CommandLine(workdir, False, False, False))


def test_it_writes_its_files(tmp_path, capsys):
    run(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == workdirs.FILES | {"stability.png", "stability.svg"}
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    rows = json.loads(text)
    assert "NaN" not in text
    assert "Infinity" not in text
    counts = {"norms": 4 * 2, "training": 6 * 2 * 2, "bound": 2, "progress": 2 * 3, "bias": 5}
    for name, count in counts.items():
        assert len(select(rows, part=name)) == count
    assert len(rows) == sum(counts.values())
    rows_of_training = select(rows, part="training")
    failed = {
        (row["label"], row["spectral_radius"], row["learning_rate"]): row["failed"]
        for row in rows_of_training
    }
    assert len(failed) == len(rows_of_training)
    assert sum(row["chosen"] for row in rows_of_training) == 6 * 2
    for arm in ("TBPTT 4", "ARTBP 4, α = 4"):
        assert (failed[arm, 1.5, 0.01], failed[arm, 1.5, 1e3]) == (0, 1)
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    assert f"\n{table}".count("\n## ") == 5
    assert "python -m experiments.stability" in table
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == len(rows)


@pytest.mark.slow
@pytest.mark.optimised  # differences in rounding grow along a training
def test_trainings_against_a_loop_in_python(float64):
    jax.clear_caches()  # programs that other tests compiled with few optimisations
    config = tiny_config("num_seeds=1", "num_sequences=10", "hidden_size=5")
    bounds = [Clip(norm_bound=0.2), Clip(value_bound=0.1), Clip()]
    cases = [
        {"spectral_radius": radius, "learning_rate": rate, **bound._asdict()}
        for radius, rate, bound in zip((0.8, 1.2, 1.2), (0.3, 0.1, 0.1), bounds, strict=True)
    ]
    losses = training.final_losses(config, parse(ARTBP), cases)
    assert losses.shape == (2, 3)  # one run that is reported, one to tune on
    assert len(np.unique(losses)) == 6
    init_key, boundary_key = jax.random.split(jax.random.key(0))
    stream = system.sequences(config, 0, 10)
    estimator = system.make_estimator(parse(ARTBP), config)
    clip = jax.jit(system.clip)
    for case, bound, found in zip(cases, bounds, losses[0], strict=True):
        params = system.init(init_key, 5, case["spectral_radius"])
        state = estimator.init(params, jnp.zeros((2, 5)), rng_key=boundary_key)
        step, total, count = 0, 0.0, 0
        while step < 120:
            gradient, state, info = estimator.estimate(params, state, stream)
            if step >= 108:  # segments that begin in the last tenth, one sequence
                total, count = total + float(info.loss_sum), count + int(info.num_losses)
            clipped = clip(gradient, bound)
            params = jax.tree.map(lambda x, g, r=case["learning_rate"]: x - r * g, params, clipped)
            step += int(info.length)
        np.testing.assert_allclose(found, total / count, rtol=1e-9)


def test_cases_of_every_arm():
    config = tiny_config()
    arms = dict.fromkeys(arm for arm, _, _ in trained(config))
    cases = [case for arm in arms for case in training.cases(config, arm)]
    of_training = select(cases, part="training")
    assert len(of_training) == len(TRAINED) * 2 * 2
    by_value = select(cases, part="training", label="ARTBP 4, α = 4, clipped by value")
    clipped = [(case["norm_bound"], case["value_bound"]) for case in by_value]
    assert clipped == [(np.inf, config.clip_value)] * 4
    progress = select(cases, part="progress")
    assert [case["norm_bound"] for case in progress] == [0.1, 0.1, 1.0, 1.0, np.inf, np.inf]
    assert [case["learning_rate"] for case in progress] == [0.01, 0.1] * 3
    assert {case["spectral_radius"] for case in progress} == {config.clipping_radius}


def test_outcomes_count_what_is_not_finite_as_failed():
    row = training.outcome(np.array([0.5, np.nan, 2.1, np.inf, 0.1]))
    assert row["failed"] == pytest.approx(3 / 5)
    assert row["loss_median"] == 2.1
    assert (row["loss_smallest"], row["loss_largest"]) == (0.1, np.inf)
    assert report.clip_words({"norm_bound": np.inf, "value_bound": 0.5}) == ("value", "0.5")


def test_a_rate_is_chosen_by_the_mean_of_runs_none_of_which_failed():
    rows = [{"learning_rate": rate} for rate in (0.1, 0.2, 0.4, 0.8)]
    losses = np.array([[0.5, 0.6, 0.1, 0.1], [0.7, 0.4, 2.1, np.nan]])
    rows = training.choose(rows, losses)
    assert [row["tuning_loss"] for row in rows] == pytest.approx([0.6, 0.5, np.inf, np.inf])
    assert [row["chosen"] for row in rows] == [False, True, False, False]
    assert not any(row["rate_at_edge"] for row in rows)


def test_runs_that_choose_the_rate_are_not_reported(monkeypatch):
    """With made-up losses: a run that is reported has the loss 1, one to tune on the loss of its
    place in the grid."""

    def final_losses(config, arm, cases):
        tuning = [config.learning_rates.index(case["learning_rate"]) for case in cases]
        return np.array([[1.0] * len(cases)] * 2 + [tuning])

    monkeypatch.setattr(training, "final_losses", final_losses)
    config = tiny_config("clipping_learning_rates=(0.01,)", "learning_rates=(0.01, 0.1, 1.0)")
    rows = training.run(config, lambda line: None)
    assert {row["loss_largest"] for row in rows} == {1.0}
    of_training = select(rows, part="training")
    assert [row["tuning_loss"] for row in of_training] == [0, 1, 2] * (6 * 2)
    assert [row["chosen"] for row in of_training] == [True, False, False] * (6 * 2)
    assert not any("chosen" in row for row in select(rows, part="progress"))


def training_rows(label, outcomes, chosen):
    return [
        {
            "part": "training",
            "label": label,
            "spectral_radius": 1.0,
            "learning_rate": rate,
            "loss_median": loss,
            "failed": failed,
            "chosen": rate == chosen,
        }
        for rate, (loss, failed) in zip((0.1, 0.2, 0.4, 0.8, 1.6), outcomes, strict=False)
    ]


def test_summary_of_an_arm():
    rows = training_rows("TBPTT", [(0.5, 0), (0.3, 0), (0.2, 0.2)], chosen=0.2)
    rows += training_rows("ARTBP", [(0.4, 0), (np.inf, 0.4), (0.6, 0)], chosen=0.1)
    tbptt = report.summary(rows, "TBPTT", "TBPTT", 1.0)
    assert (tbptt["learning_rate"], tbptt["stable"]) == (0.2, "0.2")
    artbp = report.summary(rows, "ARTBP", "TBPTT", 1.0)
    assert (artbp["learning_rate"], artbp["stable"]) == (0.1, "0.1")
    assert artbp["at_first_rate"]["failed"] == 0.4


def test_the_best_points_of_the_figure_are_those_of_the_table():
    names = ("tbptt(20)", "artbp(20, alpha=4)", "artbp(20, alpha=4) clipped by norm")
    config = types.SimpleNamespace(figure_radius=1.0, num_seeds=5, trained=names)
    outcomes = ((0.5, 0.0), (0.1, 0.2), (np.inf, 0.6), (0.3, 0.0), (9.0, 1.0))
    labels = [label for _, _, label in trained(config)]
    rows = [row for label in labels for row in training_rows(label, outcomes, chosen=0.8)]
    axes = Figure().subplots()
    figure._trainings(axes, config, rows)

    def marked(marker, face=None):
        return {
            (line.get_xdata()[0], line.get_ydata()[0])
            for line in axes.lines
            if line.get_marker() == marker and face in (None, line.get_markerfacecolor())
        }

    best = report.summary(rows, labels[1], labels[0], 1.0)
    assert marked("D") == {(best["learning_rate"], best["loss_median"])} == {(0.8, 0.3)}
    assert marked("o", "white") == {(0.2, 0.1)}
    assert marked("X") == {(0.4, figure.TOP), (1.6, figure.TOP)}
    words = [text.get_text() for text in axes.texts]
    assert "TBPTT 20\nfirst failure at η = 0.2" in words
