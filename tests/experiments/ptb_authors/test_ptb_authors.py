"""The study of the authors' protocol: one small study as processes, its rows, table and figure."""

import dataclasses
import importlib
import json
import math
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from experiments.common.arms import parse
from experiments.common.config import load_config
from experiments.common.errors import ConfigError, WorkdirError
from experiments.common.workdir import Workdir, as_json
from experiments.ptb.config import default_config
from experiments.ptb.model import bits_per_character, character_model
from experiments.ptb.run import run as ptb_run
from experiments.ptb_authors import continued, figure, report, rows, since_zero
from experiments.ptb_authors.arms import ARMS, PAIRS
from experiments.ptb_study.study import Study, chosen_arms, finished_rows, run_study

ROOT = Path(__file__).parents[3]
NEWLINE = 0
SYMBOLS = np.random.default_rng(1).integers(0, 6, 47).astype(np.int32)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study whose runs have finished: two arms, one rate, one seed."""
    folder = tmp_path_factory.mktemp("authors")
    config = folder / "tiny.py"
    config.write_text("def get_config():\n    return {'num_epochs': 2, 'columns': 4, 'batch': 4}\n")
    overrides = ["data.source=generated", "data.generated_lines=60", "data.keep_line_spaces=True"]
    overrides += ["model.cell=authors_lstm", "model.hidden_size=8"]
    arms = chosen_arms(("tbptt-zero", "artbp-zero"), [1e-4], ARMS)
    given = {"config_path": str(config), "overrides": overrides}
    study = Study(arms, [1], [], folder / "study", **given)
    run_study(study, jobs=2, write_report=lambda finished: None)
    return study


@pytest.fixture(scope="module")
def collected(study):
    return rows.collect(study, study.runs(finished_rows(study)))


def test_arms_start_as_they_say():
    for name, compared in ARMS.items():
        start = parse(compared.arm).arguments.get("segment_start", "carried")
        assert start == ("initial" if "-zero" in name else "carried")
    assert all({first, second} <= ARMS.keys() for first, second, _ in PAIRS)


def test_a_row_has_the_curves_and_the_scores_of_a_run(study, collected):
    assert [(row["arm"], row["seed"]) for row in collected] == [
        ("tbptt-zero", 1),
        ("artbp-zero", 1),
    ]
    for row in collected:
        assert len(row["valid_bpc"]) == len(row["train_bits"]) == 2
        results, scores = row["results"], row["scores"]
        assert results["in_columns"]["valid_bpc"] == min(row["valid_bpc"])
        assert results["valid_bpc"] != results["in_columns"]["valid_bpc"]
        # Every line of the generated text lost two spaces to the usual counting.
        assert 1.0 < scores["valid"]["counting"] < 1.2
        assert scores["valid"]["reset"] != scores["valid"]["carried"]
        assert len(scores["train"]["by_offset"]) == 2 and "by_offset" not in scores["valid"]


def test_a_run_that_has_not_finished_has_curves_only(study, collected, tmp_path):
    [run, _] = study.runs(finished_rows(study))
    other = Study(study.arms, [1], [], tmp_path, study.config_path, study.overrides)
    assert rows.collect(other, [run]) == []
    copied = tmp_path / "runs" / run.name
    copied.mkdir(parents=True)
    shutil.copy(study.folder / "runs" / run.name / "config.json", copied)
    whole = (study.folder / "runs" / run.name / "metrics.jsonl").read_text().splitlines()
    cut = next(i for i, line in enumerate(whole) if json.loads(line)["kind"] == "evaluation")
    (copied / "metrics.jsonl").write_text("\n".join(whole[: cut + 1]) + "\n")
    [row] = rows.collect(other, [run])
    assert row["results"] is None and row["scores"] is None
    assert row["valid_bpc"] == collected[0]["valid_bpc"][:1]


def test_a_run_that_has_not_finished_is_scored_by_its_best_params_so_far(
    study, collected, tmp_path
):
    [run, _] = study.runs(finished_rows(study))
    folder = tmp_path / "runs" / run.name
    shutil.copytree(study.folder / "runs" / run.name, folder)
    for name in ("results.json", "since_zero.json"):
        (folder / name).unlink()
    other = Study(study.arms, [1], [], tmp_path, study.config_path, study.overrides)
    [row] = rows.collect(other, [run], score_unfinished=True)
    assert row["results"] is None and row["scores"] == collected[0]["scores"]
    # They are stored nowhere: the run may go on.
    assert not (folder / "since_zero.json").exists()
    *_, line, _, _ = report.markdown([row], "tiny").splitlines()
    reset, carried = row["scores"]["valid"]["reset"], row["scores"]["train"]["carried"]
    first, second = row["scores"]["train"]["by_offset"]
    numbers = f"{reset:.4f} | {carried:.4f} | {first:.4f} | {second:.4f}"
    assert line.endswith(f"|  |  |  | {numbers} |")
    del row["scores"]["train"]["by_offset"]  # as in rows of earlier versions
    *_, line, _, _ = report.markdown([row], "tiny").splitlines()
    assert line.endswith(f"| {reset:.4f} | {carried:.4f} |  |  |")


def with_fields(config, *overrides):
    return load_config(config, overrides=overrides)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def without_training(row):
    """As earlier versions wrote it."""
    return {name: value for name, value in row.items() if name != "training"}


def test_rows_of_another_folder_join(study, collected, tmp_path):
    [first, second] = collected
    file, config = tmp_path / "rows.jsonl", study.config()
    other_seed = second | {"seed": 0}
    not_finished = first | {"results": None, "valid_bpc": [9.0]}
    rows_of_file = [second | {"train_bits": [9.0]}, other_seed, not_finished]
    others = rows.read([write_rows(file, rows_of_file)], config)
    assert others == rows_of_file
    # Of two rows of a run the one that has come farther counts; if both have, the own one.
    assert rows.joined([second, first], others) == [first, other_seed, second]
    assert rows.joined([not_finished], [first]) == [first]
    assert rows.joined([second, first], []) == [second, first]

    with pytest.raises(ConfigError, match="has a run with 8 units and 3 epochs"):
        write_rows(file, [first | {"valid_bpc": [9.0] * 3}])
        rows.read([str(file)], config)
    write_rows(file, [second | {"arm": "tbptt-none"}])
    for path in (file, tmp_path / "none.jsonl"):
        with pytest.raises(ConfigError, match=rf"{path.name}.*Expected a rows.jsonl"):
            rows.read([str(path)], config)


def test_rows_of_another_training_do_not_join(study, collected, tmp_path):
    [first, second] = collected
    file, config = tmp_path / "rows.jsonl", study.config()
    write_rows(file, collected)
    for override, words in (
        ("batch=8", r"differ: batch \(4 there, 8 here\)\. Expected"),
        ("model.cell=lstm", r"model\.cell \('authors_lstm' there, 'lstm' here\)"),
        ("data.keep_line_spaces=False", "data.keep_line_spaces"),
        ("optimizer.options.eps=1e-3", r"optimizer.options.eps \('absent' there, 0\.001 here\)"),
        ("optimizer.clip_norm=1.0", "optimizer.clip_norm"),
        ("num_epochs=3", "num_epochs"),
    ):
        with pytest.raises(ConfigError, match=words):
            rows.read([str(file)], with_fields(config, override))
    # The arm, the rate, the seed and the driver of a run are its own.
    same = with_fields(
        config, "arm=tbptt(2)", "optimizer.learning_rate=1.0", "seed=7", "driver=host"
    )
    assert rows.read([str(file)], same) == collected
    # Every row is checked, not only the last one of a run; a field that it lacks was added later.
    other = first["training"] | {"batch": 8}
    write_rows(file, [first | {"training": other}, first])
    with pytest.raises(ConfigError, match="8 there, 4 here"):
        rows.read([str(file)], config)
    del other["on_divergence"], other["model.products"]
    write_rows(file, [second | {"training": other | {"batch": 4}}])
    rows.read([str(file)], config)


def test_rows_that_do_not_hold_their_training_have_that_of_the_folder(study, collected, tmp_path):
    file, config = tmp_path / "rows.jsonl", study.config()
    write_rows(file, map(without_training, collected))
    other_batch = with_fields(config, "batch=8")
    assert len(rows.read([str(file)], other_batch)) == 2  # nothing says that it is another one
    with pytest.raises(ConfigError, match=r"8 units and 2 epochs. Expected .* 9 units"):
        rows.read([str(file)], with_fields(config, "model.hidden_size=9"))
    with pytest.raises(ConfigError, match=r"2 epochs. Expected .* 20 epochs"):
        rows.read([str(file)], with_fields(config, "num_epochs=20"))
    (tmp_path / "config.json").write_text(json.dumps({"study_of": config.to_dict()}))
    assert len(rows.read([str(file)], config)) == 2
    with pytest.raises(ConfigError, match="4 there, 8 here"):
        rows.read([str(file)], other_batch)


def test_the_rows_of_the_repository_can_be_read():
    """Some are of a version that did not write the training, and has fewer fields."""
    config = load_config(default_config(), ROOT / "configs" / "ptb" / "authors.py")
    results = ROOT / "experiments" / "results" / "ptb_authors"
    path = str(results / "units256" / "rows.jsonl")
    assert len(rows.read([path], with_fields(config, "model.hidden_size=256"))) >= 10
    with pytest.raises(ConfigError, match=r"model\.hidden_size"):
        rows.read([path], config)
    path = str(results / "units1000" / "rows.jsonl")
    found = rows.read([path], with_fields(config, "model.products=bfloat16"))
    finished = [row for row in found if row["results"]]
    assert {row["arm"] for row in finished} >= {"tbptt-zero", "artbp-zero"}
    assert all(len(row["scores"]["valid"]["since_zero"]) == 17 for row in finished)


def test_measurements_are_refused():
    """They were left out silently: every run here is one of a kind that is not measured."""
    main = importlib.import_module("experiments.ptb_authors.__main__")
    config = load_config(default_config(), overrides=["shadow.every=100"])
    with pytest.raises(ConfigError, match=r"shadow\.every is 100: .* expected 0") as caught:
        main.check(config)
    assert "\n" not in str(caught.value)
    main.check(default_config())


def test_table_and_figure(collected):
    text = report.markdown(collected, "tiny", ["tune-x: diverged, see logs/tune-x.log"])
    assert text.endswith("Not finished: tune-x: diverged, see logs/tune-x.log.\n")
    difference = collected[1]["results"]["valid_bpc"] - collected[0]["results"]["valid_bpc"]
    assert f"| artbp-zero − tbptt-zero | the paper's comparison | {difference:+.4f} |" in text
    assert "it is 11 for ARTBP and TBPTT from zero" in text
    assert "## Rate 0.0001: differences" in text and f"## {report.BEST}" not in text
    unfinished = [row | {"results": None, "scores": None} for row in collected]
    for compared in (collected, unfinished):
        assert len(figure.draw(compared, "tiny").axes) == 4


def test_the_better_rate_is_chosen_by_the_mean_over_seeds():
    def row(arm, rate, seed, bits):
        results = {"valid_bpc": bits} if bits else None
        return {"arm": arm, "learning_rate": rate, "seed": seed, "results": results}

    rows = [
        *(row("a", 1e-3, 0, 1.4), row("a", 1e-3, 1, 1.9), row("a", 1e-4, 0, 1.5)),
        row("a", 1e-4, 1, 1.7),
        # Not all of its runs have finished, and only one of its rates has run.
        *(row("b", 1e-3, 0, 1.4), row("b", 1e-4, 0, None), row("c", 1e-3, 0, 1.4)),
    ]
    found = report.settings(rows)
    assert list(found) == ["Rate 0.001", "Rate 0.0001", report.BEST]
    assert found[report.BEST] == [rows[2], rows[3]]
    assert report.BEST not in report.settings(rows[:2])


@pytest.mark.parametrize(
    ("ours", "theirs", "epoch"),
    [
        ([3, 2, 1], [2, 2, 2], 3),
        ([3, 1, 3, 1, 0], [2, 2, 2, 2, 2], 4),
        ([1, 1], [2, 2], 1),
        ([1, 3], [2, 2], None),
        ([3, 1], [2, 2, 0], 2),
        ([], [], None),
    ],
)
def test_crossing(ours, theirs, epoch):
    assert report.crossing(ours, theirs) == epoch


def test_the_authors_curves_say_what_the_paper_says():
    curves = rows.authors_curves()
    for method, best, worse_at_3 in (("artbp", 1.434, 1.689), ("tbptt", 1.472, 1.639)):
        valid = curves[method]["valid"]
        assert valid.shape == (6, 20)
        assert valid.mean(axis=0).min() == pytest.approx(best, abs=5e-4)
        assert valid[:, 2].mean() == pytest.approx(worse_at_3, abs=5e-4)


def test_runs_of_another_configuration_are_refused(study, tmp_path):
    """Also those that are not finished, whose results do not say it."""
    folder = tmp_path / "study"
    shutil.copytree(study.folder, folder)
    [run, *_] = study.runs(finished_rows(study))
    (folder / "runs" / run.name / "results.json").unlink()
    other = dataclasses.replace(study, folder=folder, overrides=[*study.overrides, "batch=2"])
    with pytest.raises(ConfigError, match=r"batch \(4 there, 2 here\)"):
        rows.collect(other, [run])


def test_a_run_goes_on_from_the_best_params_of_another(study, collected, tmp_path, monkeypatch):
    [run, _] = study.runs(finished_rows(study))
    folder = study.folder / "runs" / run.name
    given = {}

    def train(config, command_line, data_dir, initial_params):
        """With a rate that changes nothing."""
        given.update(config=config)
        optimizer = {**config.optimizer, "learning_rate": 1e-12}
        config = ml_collections.FrozenConfigDict({**config, "optimizer": optimizer})
        return ptb_run(config, command_line, data_dir, initial_params=initial_params)

    monkeypatch.setattr(continued, "run", train)
    arm = "tbptt(50, draw_offset=True, segment_start='initial')"
    arguments = ["--workdir", str(tmp_path / "run"), "--arm", arm]
    results = continued.main([str(folder), *arguments])
    best = min(collected[0]["valid_bpc"])
    assert results["in_columns"]["valid_bpc"] == pytest.approx(best, abs=1e-5)
    there = Workdir(folder).read_config()
    own = {"arm": arm, "num_epochs": 1, "continues": Workdir(folder).config_hash()}
    own["seed"] = there["seed"] + 1  # not the boundaries of the first epoch again
    assert as_json(given["config"]) == there | own
    assert continued.main([str(folder), *arguments, "--resume"]) == results
    with pytest.raises(WorkdirError, match="holds no run"):
        continued.main([str(tmp_path), *arguments])


def test_bits_by_offset_are_those_of_segments_read_from_zero(monkeypatch):
    """Two rows of 130 steps: of each one segment from step 0 on, and one from step 25 on."""
    model = character_model("authors_lstm", num_symbols=6, hidden_size=5)
    params = model.init(jax.random.key(0))
    symbols = np.random.default_rng(0).integers(0, 6, (131, 2))
    monkeypatch.setattr(since_zero, "_SYMBOLS", 100)
    found = since_zero.bits_by_offset(model, params, symbols[:-1], symbols[1:])
    for first, bits in zip((0, 25), found, strict=True):
        carry, nats = model.initial_carry(params, 2), 0.0
        for t in range(first, first + 50):
            carry, y = model.cell(params, carry, jnp.asarray(symbols[t]))
            nats += float(model.loss_fn(params, y, jnp.asarray(symbols[t + 1])).mean()) / 50
        assert bits == pytest.approx(nats / math.log(2), rel=1e-5)
    assert found[0] != found[1]
    monkeypatch.undo()  # as many segments as there are: one more at each
    assert found != since_zero.bits_by_offset(model, params, symbols[:-1], symbols[1:])


def test_bits_by_step_are_those_of_parts_read_from_zero():
    model = character_model("authors_lstm", num_symbols=6, hidden_size=5)
    params = model.init(jax.random.key(0))
    found = since_zero.bits_by_step(model, params, SYMBOLS, NEWLINE, 15, 16)
    before, nats = [NEWLINE, *SYMBOLS], np.zeros(15)
    for first in (0, 16, 32):
        carry = model.initial_carry(params, 1)
        for k in range(15):
            carry, y = model.cell(params, carry, jnp.asarray([before[first + k]]))
            target = jnp.asarray([SYMBOLS[first + k]])
            nats[k] += float(model.loss_fn(params, y, target)[0]) / 3
    np.testing.assert_allclose(found, nats / math.log(2), rtol=1e-5)
    found = since_zero.bits_by_step(model, params, SYMBOLS[:45], NEWLINE, 15, 15)
    columns = bits_per_character(model, params, SYMBOLS[:45], NEWLINE, columns=3)
    assert found.mean() == pytest.approx(columns, rel=1e-6)
