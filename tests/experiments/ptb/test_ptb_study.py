"""Which runs a study makes, and one small study as processes."""

import json
import os
import pathlib

import pytest
import tiny_ptb

from experiments.common.errors import ConfigError, ExperimentError, WorkdirError
from experiments.common.pool import shares_of_the_cores
from experiments.ptb_study.report import Run
from experiments.ptb_study.study import ARMS, Study, chosen_arms, run_study

ROOT = pathlib.Path(__file__).parents[3]
TBPTT, ARTBP = "tbptt50", "artbp-alpha4"


def _study(arms=(TBPTT, ARTBP), rates=(1e-3, 2e-3), tuning_seeds=(0,), seeds=(1, 2), **given):
    return Study(chosen_arms(arms, rates), tuning_seeds, seeds, **{"folder": None} | given)


def test_the_comparison_of_an_arm_comes_after_its_tuning():
    study = _study()
    tuning = [Run("tune", name, rate, 0) for rate in (1e-3, 2e-3) for name in (TBPTT, ARTBP)]
    assert study.runs([]) == tuning
    assert {(run.arm, run.learning_rate, run.seed) for run in tuning} == {
        (name, rate, 0) for name in (TBPTT, ARTBP) for rate in (1e-3, 2e-3)
    }
    done = [
        Run("tune", TBPTT, 1e-3, 0).row(1.5, 1.4),
        Run("tune", TBPTT, 2e-3, 0).row(1.6, 1.3),
        Run("tune", ARTBP, 1e-3, 0).row(1.5, 1.4),
    ]
    compared = [Run("compare", TBPTT, 1e-3, seed) for seed in (1, 2)]
    assert study.runs(done) == [*tuning, *compared]
    done.append(Run("tune", ARTBP, 2e-3, 0).row(failure="diverged"))
    assert {run for run in study.runs(done) if run.purpose == "compare"} == {
        *compared,
        *(Run("compare", ARTBP, 1e-3, seed) for seed in (1, 2)),
    }


def test_a_single_rate_needs_no_tuning():
    study = _study([ARTBP], [1e-3], seeds=[1])
    assert study.runs([]) == [Run("compare", ARTBP, 1e-3, 1)]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"arms": ["tbppt50"]}, "--arms: 'tbppt50' is unknown; expected one of tbptt50, tbptt200"),
        ({"arms": []}, "--arms"),
        ({"rates": [0.0]}, "--rates"),
        ({"rates": [float("inf")]}, "--rates"),
        ({"rates": [1e-3, 0.001]}, "--rates .* each once"),
        ({"arms": [ARTBP, ARTBP]}, "--arms .* each once"),
        ({"seeds": [1, 1]}, "--seeds .* each once"),
        ({"seeds": [2**40]}, "--seeds is 1099511627776"),
        ({"tuning_seeds": []}, "--tuning_seeds is empty"),
        ({"seeds": [0, 1]}, r"--tuning_seeds and --seeds both hold \[0\]"),
    ],
)
def test_a_bad_plan_is_refused(change, what):
    given = {"arms": [ARTBP], "rates": [1e-3], "tuning_seeds": [0], "seeds": [1]} | change
    with pytest.raises(ConfigError, match=what):
        _study(**given)


def test_a_study_runs_keeps_what_is_finished_and_survives_a_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    config_path = tmp_path / "tiny.py"
    config_path.write_text("def get_config():\n    return {'num_epochs': 1}\n")
    overrides = [o for o in tiny_ptb.OVERRIDES if not o.startswith("num_epochs")]
    folder = tmp_path / "study"
    given = {"folder": folder, "config_path": str(config_path), "overrides": overrides}
    # The second rate overflows at once.
    study = _study([ARTBP], [1e-2, 1e38], seeds=[], **given)

    done = {row["learning_rate"]: row for row in run_study(study, jobs=2)}
    assert done[1e-2]["failure"] is None and 0 < done[1e-2]["test_bpc"] < 6
    assert done[1e38]["failure"] == "diverged, see logs/tune-artbp-alpha4-rate1e+38-seed0.log"
    log = folder / "logs" / "tune-artbp-alpha4-rate1e+38-seed0.log"
    assert "TrainingDivergedError" in log.read_text()
    rows = json.loads((folder / "results.json").read_text())
    assert {row["learning_rate"]: row["failure"] is None for row in rows} == {
        1e-2: True,
        1e38: False,
    }
    assert "| artbp-alpha4 | 0.01 | 0 |" in (folder / "table.md").read_text()

    capsys.readouterr()
    only_finished = {"arms": [ARTBP], "rates": [1e-2], "tuning_seeds": [5], "seeds": [0]}
    (folder / "runs" / "tune-artbp-alpha4-rate0.01-seed0").rename(
        folder / "runs" / "compare-artbp-alpha4-rate0.01-seed0"
    )
    [row] = run_study(_study(**only_finished, **given), jobs=1)
    assert row["test_bpc"] == done[1e-2]["test_bpc"] and "start" not in capsys.readouterr().out

    other = _study(**only_finished, **given | {"overrides": [*overrides, "batch=8"]})
    with pytest.raises(WorkdirError, match=r"study_of\.batch: 4 there, 8 given"):
        run_study(other, jobs=1)
    with pytest.raises(WorkdirError, match="another configuration"):
        other.finished(Run("compare", ARTBP, 1e-2, 0))


def test_the_folder_of_a_run_is_left_alone(finished_run):
    workdir, _ = finished_run
    before = (workdir / "results.json").read_bytes()
    with pytest.raises(WorkdirError, match="holds another run"):
        run_study(_study(folder=workdir, overrides=tiny_ptb.OVERRIDES), jobs=1)
    assert (workdir / "results.json").read_bytes() == before


@pytest.mark.parametrize("override", ["data.source=wiki", "data.source=ptb", "batch=0"])
def test_a_bad_configuration_fails_once_and_before_anything_is_written(tmp_path, override):
    overrides = [*tiny_ptb.OVERRIDES, override]
    study = _study(folder=tmp_path / "study", overrides=overrides, data_dir=str(tmp_path))
    with pytest.raises(ExperimentError):
        run_study(study, jobs=1)
    assert not (tmp_path / "study").exists()


def test_no_rate_is_chosen_while_a_tuning_run_has_failed_otherwise_than_by_diverging():
    study = _study()
    [one, two] = study.tuning_runs(ARTBP)
    done = [one.row(1.5, 1.4), two.row(failure="exit code 2, see logs/x.log")]
    assert all(run.purpose == "tune" for run in study.runs(done))


def test_arms_differ_in_what_their_names_say_and_each_is_paired_with_its_own_optimiser(tmp_path):
    study = _study(ARMS, folder=tmp_path, config_path=str(ROOT / "configs" / "ptb" / "small.py"))
    configs = {name: study.config(Run("compare", name, 1e-3, 1)) for name in ARMS}
    told = {name: (config.arm, config.optimizer.name) for name, config in configs.items()}
    assert told == {
        "tbptt50": ("tbptt(50, draw_offset=True)", "adam"),
        "tbptt200": ("tbptt(200, draw_offset=True)", "adam"),
        "artbp-alpha4": ("artbp(50, alpha=4)", "adam"),
        "artbp-alpha6": ("artbp(50, alpha=6)", "adam"),
        "unbiased50": ("unbiased_tbptt(50, hazard=0.75)", "adam"),
        "uncompensated": ("uncompensated(50, alpha=4)", "adam"),
        "sgd-tbptt50": ("tbptt(50, draw_offset=True)", "sgd"),
        "sgd-artbp-alpha4": ("artbp(50, alpha=4)", "sgd"),
    }
    assert all(config.shadow.every == 100 for config in configs.values())
    for name, arm in ARMS.items():
        if arm.reference is not None:
            assert configs[name].optimizer == configs[arm.reference].optimizer
            assert arm.rates == ARMS[arm.reference].rates
    # What is tuned is not watched: the parameters are the same, and it takes less time.
    assert study.config(Run("tune", TBPTT, 1e-3, 0)).shadow.every == 0


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be set here")
def test_cores_are_dealt_out_and_no_process_is_left_without():
    cores = os.sched_getaffinity(0)
    for jobs in range(1, 2 * len(cores) + 2):
        shares = shares_of_the_cores(jobs)
        assert len(shares) == jobs and all(shares)
        assert frozenset().union(*shares) == cores
        if jobs <= len(cores):
            assert sum(map(len, shares)) == len(cores)
