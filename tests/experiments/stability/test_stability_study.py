"""Outcomes of trainings, and the whole experiment at a tiny size."""

import json
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.common.metrics import read_metrics
from experiments.stability import __main__ as experiment
from experiments.stability import figure, methods, report, system, training
from experiments.stability.config import default_config

CONFIGS = Path(__file__).parents[3] / "configs" / "stability"
TINY = (
    "spectral_radii=(0.8, 1.5)",
    "hidden_size=4",
    "num_rows=2",
    "sequence_length=12",
    "mean_length=4",
    "num_norm_draws=3",
    "num_sequences=30",
    "learning_rates=(0.01, 1e3)",
    "num_seeds=2",
    "bound_updates=5",
    "bound_points=3",
    "clip_bounds=(0.1, 1.0)",
    "num_bias_keys=3",
)


def tiny_config(*overrides):
    return load_config(default_config(), CONFIGS / "default.py", (*TINY, *overrides))


def run(workdir, *overrides):
    experiment.main(tiny_config(*overrides), CommandLine(workdir, False, False, False))


def test_it_writes_its_files(tmp_path, capsys):
    run(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    expected = {"config.json", "metrics.jsonl", "results.json", "table.md"}
    assert names == expected | {"stability.png", "stability.svg"}
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    rows = json.loads(text)
    assert "NaN" not in text
    assert "Infinity" not in text
    counts = {"norms": 4 * 2, "training": 6 * 2 * 2, "bound": 2, "progress": 2 * 3, "bias": 5}
    for name, count in counts.items():
        assert len(report.part(rows, name)) == count
    assert len(rows) == sum(counts.values())
    trained = report.part(rows, "training")
    failed = {
        (row["arm"], row["spectral_radius"], row["learning_rate"]): row["failed"] for row in trained
    }
    assert len(failed) == len(trained)
    for arm in ("TBPTT", "ARTBP"):
        assert (failed[arm, 1.5, 0.01], failed[arm, 1.5, 1e3]) == (0, 1)
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    assert table.count("\n## ") == 5
    assert "--config configs/stability/default.py" in table
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == len(rows)


def test_trainings_against_a_loop_in_python(float64):
    config = tiny_config("num_seeds=1", "num_sequences=10", "hidden_size=5")
    cases = [
        training.Case({}, 0.8, 0.3, methods.Clip(norm=0.2)),
        training.Case({}, 1.5, 0.1, methods.Clip(value=0.1)),
        training.Case({}, 1.5, 0.1, methods.Clip()),
    ]
    losses = training.final_losses(config, "artbp_polynomial", cases)
    assert losses.shape == (1, 3)
    assert len(np.unique(losses)) == 3
    init_key, boundary_key = jax.random.split(jax.random.key(0))
    stream = system.sequences(0, 2, num_sequences=10, length=12, horizon=6)
    estimator = methods.Truncation("artbp_polynomial", 4, 4.0, 12).estimator(2)
    clip = jax.jit(methods.clip)
    for case, found in zip(cases, losses[0], strict=True):
        params = system.init(init_key, 5, case.radius)
        state = estimator.init(params, jnp.zeros((2, 5)), rng_key=boundary_key)
        step, total, count = 0, 0.0, 0
        while step < 120:
            gradient, state, info = estimator.estimate(params, state, stream)
            if step >= 108:  # segments that begin in the last tenth, one sequence
                total, count = total + float(info.loss_sum), count + int(info.num_losses)
            clipped = clip(gradient, case.bounds)
            params = jax.tree.map(lambda x, g, r=case.rate: x - r * g, params, clipped)
            step += int(info.length)
        np.testing.assert_allclose(found, total / count, rtol=1e-9)


def test_cases_of_every_arm():
    config = tiny_config()
    arms = [case for name in methods.TRUNCATIONS for case in training.arm_cases(config, name)]
    assert len(arms) == len(training.ARMS) * 2 * 2
    clipped = [case.bounds for case in arms if case.tags["arm"] == "ARTBP, clipped by value"]
    assert clipped == [(np.inf, config.clip_value)] * 4
    progress = training.progress_cases(config)
    assert [case.bounds.norm for case in progress] == [0.1, 1.0, np.inf] * 2
    assert {case.radius for case in progress} == {config.clipping_radius}


def test_outcomes_count_what_is_not_finite_as_failed():
    case = training.Case({"arm": "arm"}, 1.0, 0.1, methods.Clip(value=0.5))
    row = training.outcome_row(case, np.array([0.5, np.nan, 2.1, np.inf, 0.1]))
    assert row["failed"] == pytest.approx(3 / 5)
    assert row["loss_median"] == 2.1
    assert (row["loss_smallest"], row["loss_largest"]) == (0.1, np.inf)
    assert (row["norm_bound"], row["value_bound"]) == (np.inf, 0.5)
    assert report.clip_words(row) == ("value", "0.5")


def test_summary_of_an_arm():
    def row(arm, rate, loss, failed=0.0):
        return {
            "arm": arm,
            "spectral_radius": 1.0,
            "learning_rate": rate,
            "loss_median": loss,
            "failed": failed,
        }

    rows = [row("TBPTT", 0.1, 0.5), row("TBPTT", 0.2, 0.3), row("TBPTT", 0.4, 0.2, 0.2)]
    rows += [row("ARTBP", 0.1, 0.4), row("ARTBP", 0.2, np.inf, 0.4), row("ARTBP", 0.4, 0.6)]
    tbptt = report.summary(rows, "TBPTT", 1.0)
    assert (tbptt["best_rate"], tbptt["at_edge"], tbptt["largest_stable_rate"]) == (0.2, False, 0.2)
    artbp = report.summary(rows, "ARTBP", 1.0)
    assert (artbp["best_rate"], artbp["at_edge"], artbp["largest_stable_rate"]) == (0.1, True, 0.1)
    assert artbp["at_tbptt_rate"]["failed"] == 0.4


def test_the_best_points_of_the_figure_are_those_of_the_table():
    config = types.SimpleNamespace(figure_radius=1.0, num_seeds=5)
    rates = (0.1, 0.2, 0.4, 0.8, 1.6)
    # The lowest median is of a rate where one run fails; the best comes after a rate where most do.
    outcomes = ((0.5, 0.0), (0.1, 0.2), (np.inf, 0.6), (0.3, 0.0), (9.0, 1.0))
    rows = [
        {
            "arm": arm.label,
            "spectral_radius": 1.0,
            "learning_rate": rate,
            "loss_median": loss,
            "failed": failed,
        }
        for arm in training.ARMS
        for rate, (loss, failed) in zip(rates, outcomes, strict=True)
    ]
    axes = Figure().subplots()
    figure._trainings(axes, rows, config)

    def marked(marker, face=None):
        return {
            (line.get_xdata()[0], line.get_ydata()[0])
            for line in axes.lines
            if line.get_marker() == marker and face in (None, line.get_markerfacecolor())
        }

    best = report.summary(rows, "ARTBP", 1.0)["best"]
    assert marked("D") == {(best["learning_rate"], best["loss_median"])} == {(0.8, 0.3)}
    assert marked("o", "white") == {(0.2, 0.1)}
    assert marked("X") == {(0.4, figure.TOP), (1.6, figure.TOP)}
    words = [text.get_text() for text in axes.texts]
    assert "TBPTT\nfirst failure at η = 0.2" in words
