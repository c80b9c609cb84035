"""Decides what the report of a folder holds, and writes it.

    training of hours       charts of metrics.jsonl, samples, numbers of results.json
    experiment of minutes   figures, table.md
    study of trainings      the same, and all its runs

Each has its configuration too. A file that is missing, because a run is unfinished or because only
its results are at hand, costs its part of the report and no more.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import catalogue, figures
from experiments.common.arms import Arm, parse
from experiments.common.config import flatten
from experiments.common.errors import ConfigError, ExperimentError
from experiments.common.metrics import largest_weight, read_metrics
from experiments.common.report import Row
from experiments.common.workdir import Workdir, read_workdir, write_atomically
from experiments.report import charts
from experiments.report.page import Link, Page

_SAMPLE = {"prompt": "the ", "length": 300, "seed": 0}
_TEMPERATURES = (0.5, 1.0)
_LONGEST = 1000  # lengths in the chart of a law


_RUNS_NOTE = "A line for each run, coloured by its arm."
# Title, kind of row, field, x, label of y, scale: a chart of all runs of a study.
_OF_RUNS = (
    ("Validation by epoch", "evaluation", "valid_bpc", "epoch", "bits per character", "linear"),
    ("Training by update", "train", "bits", "update", "bits per character", "linear"),
    ("Longest segment", "train", "max_length", "update", "time steps", "log"),
    ("Longest look-back", "train", "max_look_back", "update", "windows", "zero"),
    ("Largest weight", "train", "max_weight", "update", "weight", "log"),
    ("Throughput", "train", "steps_per_second", "update", "time steps per second", "zero"),
)


def write_html(folder: str | Path, path: Path | None = None, *, results: Any = None) -> Path:
    """Writes the report of a folder to `path`, or to report.html in it, and returns the path.

    `results`: of a training whose results.json is not written yet. Raises WorkdirError for a folder
    that holds no run.
    """
    workdir, config = read_workdir(folder)
    rows = read_metrics(workdir.metrics_path) if workdir.metrics_path.is_file() else []
    if any(row["kind"] == "train" for row in rows):
        page = _training(workdir, config, rows, results or _results(workdir))
    elif "study_of" in config:
        page = _study(workdir, config["study_of"])
    else:
        page = _experiment(workdir, config)
    path = path or workdir.path / "report.html"
    write_atomically(path, page.html())
    return path


def _training(
    workdir: Workdir, config: Mapping[str, Any], rows: Sequence[Row], results: Any
) -> Page:
    arm = _arm(config.get("arm"))
    page = Page(arm.label if arm else workdir.path.name, f"One training, {workdir.path.name}")
    train = [row for row in rows if row["kind"] == "train"]
    last, speed = train[-1], _median_speed(train)
    facts = {"state": "finished" if results else "not finished"}
    if results:
        names = {"valid_bpc": "validation, bits", "test_bpc": "test, bits"}
        facts |= {words: f"{results[name]:.4f}" for name, words in names.items()}
        facts |= {"parameters": f"{results['parameters']:,}"}
    facts |= {"epochs": f"{last['epoch']} of {config.get('num_epochs', '?')}"}
    facts |= {"updates": f"{last['update']:,}", "time steps": f"{last['time_step']:,}"}
    facts |= {"largest weight": f"{largest_weight(train):.3g}"}
    if skipped := sum(row.get("skipped", 0) for row in train):
        facts |= {"skipped updates": f"{skipped:,}"}
    if roll_backs := sum(row["kind"] == "roll_back" for row in rows):
        facts |= {"roll-backs": f"{roll_backs:,}"}
    facts |= {"median time steps per second": f"{speed:,.0f}"}
    facts |= {"training time": f"{last['time']['elapsed_seconds']:,.0f} s"}
    page.facts(facts)
    page.heading("Training")
    page.charts([*charts.of_training(rows), *_law(arm)])
    _add_samples(page, workdir)
    _add_starts(page, workdir)
    _add_config(page, config)
    return page


def _experiment(workdir: Workdir, config: Mapping[str, Any]) -> Page:
    table = workdir.path / "table.md"
    text = table.read_text(encoding="utf-8") if table.is_file() else ""
    made_by = re.search(r"^Made by .*python -m experiments\.(\w+)", text, re.MULTILINE)
    name = made_by[1] if made_by else workdir.path.name
    state = "" if _results(workdir) else " Not finished."
    page = Page(name, catalogue.experiments().get(name, "Results of an experiment.") + state)
    _add_results(page, workdir)
    _add_starts(page, workdir)
    _add_config(page, config)
    return page


def _study(workdir: Workdir, config: Mapping[str, Any]) -> Page:
    page = Page(workdir.path.name, "A study: many trainings, and their comparison")
    runs = {path.parent.name: path for path in sorted(workdir.path.glob("runs/*/metrics.jsonl"))}
    found = {name: read_metrics(path) for name, path in runs.items()}
    found = {name: rows for name, rows in found.items() if any(r["kind"] == "train" for r in rows)}
    if found:
        page.heading("Runs")
        _add_runs(page, workdir, found)
    _add_results(page, workdir)
    _add_config(page, config)
    return page


def _add_runs(page: Page, workdir: Workdir, found: Mapping[str, Sequence[Row]]) -> None:
    """A table of all runs, and charts of those that are compared."""
    table, arms = [], {}
    for name, rows in found.items():
        run, config = read_workdir(workdir.path / "runs" / name)
        results, report = _results(run), run.path / "report.html"
        arms[name] = parse(config["arm"])
        train = [row for row in rows if row["kind"] == "train"]
        valid = [row["valid_bpc"] for row in rows if row["kind"] == "evaluation"]
        table.append(
            [
                Link(name, f"runs/{name}/report.html") if report.is_file() else name,
                "finished" if results else "not finished",
                f"{rows[-1]['epoch']} of {config['num_epochs']}",
                _bits(results["valid_bpc"]) if results else _bits(*valid),
                _bits(results["test_bpc"]) if results else "",
                f"{train[-1]['time_step'] / max(train[-1]['update'], 1):.1f}",
                f"{max(row['max_length'] for row in train):,}",
                f"{largest_weight(train):.3g}",
                f"{_median_speed(train):,.0f}",
            ]
        )
    compared = [name for name in found if name.startswith("compare-")] or list(found)
    colors = figures.colors(sorted({arms[name] for name in compared}, key=lambda arm: arm.text))
    shown = []
    for title, kind, field, x, y, scale in _OF_RUNS:
        lines = []
        for name in compared:
            label, color = arms[name].label, colors[arms[name]]
            lines += charts.line(found[name], kind, field, label, color, x)
        shown.append(charts.Chart(title, _RUNS_NOTE, x, y, lines, scale))
    page.charts([chart for chart in shown if chart.lines])
    headings = ["run", "state", "epochs", "best validation bits", "test bits", "mean length"]
    page.table([*headings, "longest", "largest weight", "time steps per second"], table)


def _bits(*values: float) -> str:
    return f"{min(values):.4f}" if values else ""


def _add_results(page: Page, workdir: Workdir) -> None:
    drawings = sorted(workdir.path.glob("*.svg"))
    if drawings:
        page.heading("Figures" if len(drawings) > 1 else "Figure")
    for path in drawings:
        page.figure(path.read_text(encoding="utf-8"), path.name)
    for path in sorted(workdir.path.glob("*.md"), key=lambda path: path.name != "table.md"):
        page.heading("Results" if path.name == "table.md" else path.stem.replace("_", " "))
        page.markdown(path.read_text(encoding="utf-8"))


def _add_samples(page: Page, workdir: Workdir) -> None:
    """Texts that the best model so far writes, where it is a character model."""
    from experiments.ptb.data import VOCABULARY_FILE
    from experiments.sample import sample

    if not (workdir.path / VOCABULARY_FILE).is_file():
        return
    page.heading("Samples")
    try:
        for temperature in _TEMPERATURES:
            text = sample(str(workdir.path), temperature=temperature, **_SAMPLE)
            page.preformatted(f"Temperature {temperature:g}", _SAMPLE["prompt"] + text)
    except ExperimentError as error:
        page.note(f"None: {error}")


def _add_starts(page: Page, workdir: Workdir) -> None:
    """A table of the calls that computed these numbers; nothing in a folder of earlier versions."""
    starts = workdir.read_starts()
    if not starts:
        return
    page.heading("Computed by")
    headings = ["time", "command", "commit", "processor", "device", "versions"]
    cells = [
        [
            start["time"],
            start["command"],
            start["commit"] or "–",
            f"{start['cpu']}, {start['cores']} cores",
            start["device"],
            ", ".join(f"{name} {version}" for name, version in start["versions"].items()),
        ]
        for start in starts
    ]
    page.table(headings, cells)


def _add_config(page: Page, config: Mapping[str, Any]) -> None:
    page.heading("Configuration")
    values = {name: json.dumps(v, ensure_ascii=False) for name, v in flatten(config).items()}
    page.table(["field", "value"], list(values.items()))


def _law(arm: Arm | None) -> list[charts.Chart]:
    """The law of the arm's segments or look-backs; nothing where it draws none."""
    law = (arm.law or arm.look_back) if arm else None
    if law is None or arm is None:
        return []
    words, unit = ("segment lengths", "steps") if arm.law else ("look-backs", "windows")
    survival = np.asarray(law.survival(np.arange(1, _LONGEST + 1)))
    if not np.any((survival > 0) & (survival < 1)):
        return []
    longest = max(2, int(np.argmax(survival < 1e-6)) or _LONGEST)
    return [charts.law(words, unit, survival[:longest].tolist())]


def _median_speed(train: Sequence[Row]) -> float:
    return float(np.median([row["time"]["steps_per_second"] for row in train]))


def _arm(text: str | None) -> Arm | None:
    try:
        return parse(text) if text else None
    except ConfigError:  # of another version
        return None


def _results(workdir: Workdir) -> Any:
    path = workdir.path / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
