"""The report and the curve of a training, finished or not, and of a study of trainings."""

import json
import shutil

import html_pages
import jax
import pytest
import tiny_ptb

from experiments.common.config import load_config
from experiments.common.metrics import read_metrics
from experiments.ptb.config import default_config
from experiments.ptb.run import run
from experiments.report.folder import write_html

OVERRIDES = (
    *tiny_ptb.OVERRIDES,
    "arm=unbiased_tbptt(20, hazard=0.5)",
    *("shadow.every=1", "shadow.window_length=40", "shadow.truncation_lengths=(10, 20)"),
    *("shadow.history_length=20", "shadow.num_rows=2"),
)
CHARTS = ["Loss by update", "Loss by epoch", "Segment lengths", "Look-backs", "Weights"]
CHARTS += ["Bias monitor", "Gradient norm", "Throughput", "Law of the look-backs"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The folder of a finished run that looks back and measures itself."""
    workdir = tmp_path_factory.mktemp("watched") / "run"
    run(load_config(default_config(), overrides=OVERRIDES), tiny_ptb.command_line(workdir))
    return workdir


def test_the_rows_hold_the_look_backs(watched):
    rows = [row for row in read_metrics(watched / "metrics.jsonl") if row["kind"] == "train"]
    for row in rows:
        assert 1 < row["mean_look_back"] < row["max_look_back"]
        # Every older window was reached with probability 1/2, the stream's beginning permitting.
        assert row["max_weight"] <= 2 ** (row["max_look_back"] - 1)


def test_a_run_has_its_curve_and_a_report_of_all_that_it_measured(watched):
    assert {"curve.png", "curve.svg", "report.html"} <= {path.name for path in watched.iterdir()}
    reader = html_pages.read(watched / "report.html")
    headings = ["unbiased TBPTT 20, c = 0.5", "Training", "Samples", "Temperature 0.5"]
    assert reader.headings == [*headings, "Temperature 1", "Computed by", "Configuration"]
    assert any(f"jax {jax.__version__}" in cell for cell in reader.cells)
    assert [figure["title"] for figure in reader.figures] == CHARTS
    monitor = reader.figures[CHARTS.index("Bias monitor")]
    assert all(word in monitor["svg"] for word in ("TBPTT 10", "TBPTT 20", "noise of ARTBP"))
    assert "validation from" in reader.figures[0]["alt"]
    assert "optimizer.learning_rate" in reader.cells and "0.01" in reader.cells


def test_the_results_of_a_run_are_written_last(watched, tmp_path, monkeypatch):
    """A study takes a run with results.json for finished, and does not start it again."""
    folder, written = tmp_path / "run", ("results.json", "report.html", "curve.*")
    shutil.copytree(watched, folder, ignore=shutil.ignore_patterns(*written))

    def write(*args, **kwargs):
        assert (folder / "curve.svg").exists() and not (folder / "results.json").exists()
        return write_html(*args, **kwargs)

    monkeypatch.setattr("experiments.ptb.run.write_html", write)
    config = load_config(default_config(), overrides=OVERRIDES)
    run(config, tiny_ptb.command_line(folder, resume=True))
    assert (folder / "results.json").exists()
    assert "<dd>finished</dd>" in (folder / "report.html").read_text()


def test_an_unfinished_run_has_a_report(watched, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(watched, folder, ignore=shutil.ignore_patterns("checkpoints", "results.json"))
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    [first] = [line for line in lines if '"train"' in line][:1]
    (folder / "metrics.jsonl").write_text(first + '{"kind": "tr')
    path = write_html(folder)
    reader = html_pages.read(path)
    titles = [figure["title"] for figure in reader.figures]
    assert titles == [title for title in CHARTS if title not in ("Loss by epoch", "Bias monitor")]
    text = path.read_text()
    assert "not finished" in text and "None: " in text and "no checkpoint yet" in text


def test_a_study_shows_its_runs(watched, tmp_path):
    config = json.loads((watched / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"study_of": config}))
    (tmp_path / "table.md").write_text("# Bits per character\n\n| arm |\n| --- |\n| one |\n")
    for name, without in (("compare-one", "nothing"), ("compare-two", "re*")):
        ignored = shutil.ignore_patterns("checkpoints", without)
        shutil.copytree(watched, tmp_path / "runs" / name, ignore=ignored)
    reader = html_pages.read(write_html(tmp_path))
    assert reader.headings[1:] == ["Runs", "Results", "Bits per character", "Configuration"]
    titles = [figure["title"] for figure in reader.figures]
    assert titles[:2] == ["Validation by epoch", "Training by update"] and len(titles) == 6
    assert reader.cells[:3] == ["compare-one", "finished", "2 of 2"]
    assert reader.cells[9:12] == ["compare-two", "not finished", "2 of 2"]
    assert reader.links == ["runs/compare-one/report.html"]
