"""Which runs a study makes, and one small study as processes."""

import json
import pathlib

import pytest
import tiny_ptb

from experiments.common.errors import ConfigError, ExperimentError, WorkdirError
from experiments.ptb.report import Arm, Outcome
from experiments.ptb.study import Plan, Study, run_study

ROOT = pathlib.Path(__file__).parents[3]
PLAN = Plan(["tbptt", "artbp"], [1e-3, 2e-3], tuning_seed=0, seeds=[1, 2])


def test_the_comparison_of_a_method_comes_after_its_tuning():
    tuning = [arm for method in PLAN.methods for arm in PLAN.tuning_arms(method)]
    assert PLAN.arms([]) == tuning
    assert {(arm.method, arm.learning_rate, arm.seed) for arm in tuning} == {
        (method, rate, 0) for method in ("tbptt", "artbp") for rate in (1e-3, 2e-3)
    }
    done = [
        Outcome(Arm("tune", "tbptt", 1e-3, 0), 1.5, 1.4),
        Outcome(Arm("tune", "tbptt", 2e-3, 0), 1.6, 1.3),
        Outcome(Arm("tune", "artbp", 1e-3, 0), 1.5, 1.4),
    ]
    compared = [Arm("compare", "tbptt", 1e-3, seed) for seed in (1, 2)]
    assert PLAN.arms(done) == [*tuning, *compared]
    done.append(Outcome(Arm("tune", "artbp", 2e-3, 0), failure="diverged"))
    assert {arm for arm in PLAN.arms(done) if arm.purpose == "compare"} == {
        *compared,
        *(Arm("compare", "artbp", 1e-3, seed) for seed in (1, 2)),
    }


def test_a_single_rate_needs_no_tuning():
    plan = Plan(["artbp"], [1e-3], tuning_seed=0, seeds=[1])
    assert plan.arms([]) == [Arm("compare", "artbp", 1e-3, 1)]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"methods": ["tbppt"]}, "--methods"),
        ({"methods": []}, "--methods"),
        ({"rates": [0.0]}, "--rates"),
        ({"rates": [float("inf")]}, "--rates"),
        ({"rates": [1e-3, 0.001]}, "--rates .* each value once"),
        ({"methods": ["artbp", "artbp"]}, "--methods .* each value once"),
        ({"seeds": [1, 1]}, "--seeds .* each value once"),
        ({"seeds": [2**40]}, "--seeds is 1099511627776"),
        ({"seeds": [0, 1]}, "--tuning_seed 0 is among --seeds"),
    ],
)
def test_a_bad_plan_is_refused(change, what):
    given = {"methods": ["artbp"], "rates": [1e-3], "tuning_seed": 0, "seeds": [1]}
    with pytest.raises(ConfigError, match=what):
        Plan(**given | change)


def test_a_study_runs_keeps_what_is_finished_and_survives_a_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    config_path = tmp_path / "tiny.py"
    config_path.write_text("def get_config():\n    return {'num_epochs': 1}\n")
    overrides = [o for o in tiny_ptb.OVERRIDES if not o.startswith("num_epochs")]
    folder = tmp_path / "study"
    study = Study(folder, str(config_path), overrides)
    # The second rate overflows at once.
    plan = Plan(["artbp"], [1e-2, 1e38], tuning_seed=0, seeds=[])

    outcomes = {outcome.arm.learning_rate: outcome for outcome in run_study(study, plan, jobs=2)}
    assert outcomes[1e-2].failure is None and 0 < outcomes[1e-2].test_bpc < 6
    assert outcomes[1e38].failure == "diverged, see logs/tune-artbp-rate1e+38-seed0.log"
    assert "TrainingDivergedError" in study.log_path(outcomes[1e38].arm).read_text()
    rows = json.loads((folder / "results.json").read_text())
    assert {row["learning_rate"]: row["failure"] is None for row in rows} == {
        1e-2: True,
        1e38: False,
    }
    assert "| artbp | 0.01 | 0 |" in (folder / "table.md").read_text()

    capsys.readouterr()
    only_finished = Plan(["artbp"], [1e-2], tuning_seed=5, seeds=[0])
    (folder / "runs" / "tune-artbp-rate0.01-seed0").rename(
        folder / "runs" / "compare-artbp-rate0.01-seed0"
    )
    [kept] = run_study(study, only_finished, jobs=1)
    assert kept.test_bpc == outcomes[1e-2].test_bpc and "start" not in capsys.readouterr().out

    other = Study(folder, str(config_path), [*overrides, "batch=8"])
    with pytest.raises(WorkdirError, match=r"study_of\.batch: 4 there, 8 given"):
        run_study(other, only_finished, jobs=1)
    with pytest.raises(WorkdirError, match="another configuration"):
        other.finished(kept.arm)


def test_the_folder_of_a_run_is_left_alone(finished_run):
    workdir, _ = finished_run
    before = (workdir / "results.json").read_bytes()
    with pytest.raises(WorkdirError, match="holds another run"):
        run_study(Study(workdir, None, tiny_ptb.OVERRIDES), PLAN, jobs=1)
    assert (workdir / "results.json").read_bytes() == before


@pytest.mark.parametrize("override", ["data.source=wiki", "data.source=ptb", "mean_length=1"])
def test_a_bad_configuration_fails_once_and_before_anything_is_written(tmp_path, override):
    overrides = [*tiny_ptb.OVERRIDES, override]
    study = Study(tmp_path / "study", None, overrides, data_dir=str(tmp_path))
    with pytest.raises(ExperimentError):
        run_study(study, PLAN, jobs=1)
    assert not (tmp_path / "study").exists()


def test_no_rate_is_chosen_while_a_tuning_run_has_failed_otherwise_than_by_diverging():
    [one, two] = PLAN.tuning_arms("artbp")
    done = [Outcome(one, 1.5, 1.4), Outcome(two, failure="exit code 2, see logs/x.log")]
    assert all(arm.purpose == "tune" for arm in PLAN.arms(done))
