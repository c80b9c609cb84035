"""What a study makes of the measurements of its runs."""

import json

import pytest

from artbp.diagnostics import describe
from experiments.common.errors import WorkdirError
from experiments.ptb_study import figure, limits, measured
from experiments.ptb_study.report import Run

ARM, OTHER = "tbptt50", "artbp-alpha4"
REFERENCES = {ARM: None, OTHER: ARM}


def _study(folder):
    """Two runs of one arm with measurements, and another arm that measured nothing."""
    outcomes = []
    for seed, offset in ((1, 0.0), (2, 0.2)):
        outcomes += [Run("compare", name, 1e-2, seed).row(1.8, 1.7) for name in (ARM, OTHER)]
        outcomes.append(Run("tune", ARM, 1e-2, seed).row(1.8, 1.7))
        rows = [{"kind": "train", "epoch": 1, "update": 1, "time_step": 50, "loss": 3.0}]
        for epoch in (1, 2):
            rows.append(
                {
                    "kind": "measurement",
                    "epoch": epoch,
                    "update": epoch,
                    "time_step": 50 * epoch,
                    "artbp_noise": 0.5 + offset,
                    "bias_50": None if seed == 2 and epoch == 2 else 0.1 * epoch + offset,
                    "bias_10": 0.4,
                    "gradient_norm": 2.0,
                    "projection_50": -0.01 - 0.02 * (epoch == 2) * seed,
                    "projection_10": -0.2,
                    "carry_error": 0.03,
                    "time": {},
                }
            )
        rows.append({"kind": "evaluation", "epoch": 2, "valid_bpc": 1.9})
        for name, written in ((ARM, rows), (OTHER, rows[:1])):
            path = folder / "runs" / Run("compare", name, 1e-2, seed).name
            path.mkdir(parents=True)
            lines = "".join(json.dumps(row) + "\n" for row in written)
            (path / "metrics.jsonl").write_text(lines)
    return outcomes


def test_medians_over_seeds_epoch_by_epoch(tmp_path):
    found = measured.measurements(tmp_path, _study(tmp_path), [ARM, OTHER])
    assert list(found) == [ARM] and len(found[ARM]) == 4
    assert measured.names(found[ARM]) == [
        *("bias_10", "bias_50", "projection_10", "projection_50", "artbp_noise", "carry_error")
    ]
    # A value that was not finite is left out: what is left in epoch 2 is the first seed's.
    assert measured.by_epoch(found[ARM], "bias_50") == {1: "0.200", 2: "0.200"}
    # (−0.03 − 0.05)/2, and 12.706 standard errors of 0.01.
    assert measured.by_epoch(found[ARM], "projection_50")[2] == "-0.040 ± 0.127"
    text = measured.markdown(found)
    assert "| tbptt50 | 0.400 → 0.400 | 0.200 → 0.200 | -0.200 ± 0.000 → -0.200" in text
    assert "-0.010 ± 0.000 → -0.040 ± 0.127 | 0.600 →" in text
    assert measured.markdown({}) == ""


def test_single_runs_side_by_side(tmp_path):
    """By learning rate, each with the medians over its own measurements."""
    _study(tmp_path)
    folders = [tmp_path / "runs" / Run("compare", ARM, 1e-2, seed).name for seed in (1, 2)]
    for folder, rate in zip(folders, (0.03, 0.004), strict=True):
        config = {"arm": "tbptt(50)", "optimizer": {"name": "adam", "learning_rate": rate}}
        (folder / "config.json").write_text(json.dumps(config))
    lines = measured.table_of_runs(folders).splitlines()
    headings = [cell.strip() for cell in lines[0].split("|")[1:-1]]
    assert headings[2:7] == [
        *("learning rate", "bits per character, validation", "measurements", "bias_10", "bias_50")
    ]
    assert lines[2].startswith(
        "| tbptt(50) | adam | 0.004 | 1.900 | 2 | 0.4000 | 0.3000 | 0.7000 |"
    )
    assert lines[3].startswith("| tbptt(50) | adam | 0.03 | 1.900 | 2 | 0.4000 | 0.1500 | 0.5000 |")
    with pytest.raises(WorkdirError, match="empty"):
        measured.table_of_runs([])
    (folders[0] / "metrics.jsonl").write_text("")
    with pytest.raises(WorkdirError, match="holds no measurements"):
        measured.table_of_runs(folders)


def test_the_figure_labels_what_was_measured(tmp_path):
    outcomes = _study(tmp_path)
    found = measured.measurements(tmp_path, outcomes, [ARM])[ARM]
    drawn = figure.draw(REFERENCES, outcomes, found, seeds=[1, 2])
    left, right = drawn.axes
    [label] = [label.get_text() for label in left.get_yticklabels()]
    assert label == "ARTBP 50, α = 4\nminus TBPTT 50, offset drawn"
    assert drawn.texts[1].get_text().endswith("training with TBPTT 50, offset drawn.")
    assert {text.get_text() for text in right.texts} == {
        *("error of TBPTT 10", "error of TBPTT 50", "noise of ARTBP", "carry of older params"),
    }
    # A seed that failed: the interval of the others claims nothing.
    failed = [row for row in outcomes if (row["arm"], row["seed"]) != (OTHER, 2)]
    failed.append(Run("compare", OTHER, 1e-2, 2).row(failure="diverged"))
    left = figure.draw(REFERENCES, failed, found, seeds=[1, 2]).axes[0]
    assert [t.get_text() for t in left.texts] == ["1 of 2 seeds, nothing is claimed"]
    empty = figure.draw({ARM: None}, outcomes, [], seeds=[1, 2])
    assert not empty.axes[1].lines


def test_the_report_of_a_run_is_of_its_best_parameters_and_its_text(finished_run, monkeypatch):
    workdir, _ = finished_run
    assert limits.gradient_report(limits.trained(workdir, None)) is None, "too short a text"
    small = {"WINDOW_LENGTH": 24, "NUM_WINDOWS": 10, "_SETTLING": 20}
    for name, value in (small | {"TRUNCATION_LENGTHS": (4, 12), "MEAN_LENGTH": 6}).items():
        monkeypatch.setattr(limits, name, value)
    run = limits.trained(workdir, None)
    report = limits.gradient_report(run)
    assert report.num_windows == 10 and report.window_length == 24
    assert [bias.truncation_length for bias in report.biases] == [4, 12]
    text = limits.markdown({"one": run})
    assert text.count("| TBPTT ") == 2 and text.count("| ARTBP, ") == 2
    assert f"## one\n\n{describe(report)}" in text and "nan" not in text
