"""The report of an experiment of minutes, and of the results in the repository."""

import shutil
import sys
from pathlib import Path

import html_pages
import pytest
from matplotlib.figure import Figure

from experiments.common import figures
from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.common.fields import Field
from experiments.common.report import Report, table
from experiments.common.study import Study
from experiments.report import __main__ as command
from experiments.report import page
from experiments.report.page import Page, headline

RESULTS = Path(__file__).parents[3] / "experiments" / "results"


def draw(config, say):
    figure, (axes,) = figures.new_figure((6, 3), "A <toy>", "Two & two.", [(0.1, 0.2, 0.8, 0.5)])
    axes.plot([1, 2], [3, 4], label="a")
    axes.set_title("inside the axes")
    rows = [{"name": "<b>", "value": 1.5}]
    text = table(rows, [("name", "{name}"), ("value ± half", "{value} ± 0.1")], "A note.")
    return Report(text, rows, {"toy": figure})


STUDY = Study("toy", {"seed": Field(0, "of keys"), "words": Field("<i>", "any")}, draw)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "toy"
    STUDY.main(load_config(STUDY.default_config()), CommandLine(path, False, False, False))
    return path


def test_a_study_writes_its_report(folder):
    reader = html_pages.read(folder / "report.html")
    assert reader.headings == ["toy", "Figure", "Results", "Computed by", "Configuration"]
    [figure] = reader.figures
    assert (figure["title"], figure["alt"]) == ("A <toy>", "A <toy>. Two & two.")
    assert reader.cells[:2] == ["<b>", "1.5\u00a0±\u00a00.1"]
    assert reader.cells[-4:] == ["seed", "0", "words", '"<i>"']


def test_files_are_written_whole_or_not_at_all(folder, tmp_path, monkeypatch):
    """An error in the middle of a file leaves the file of an earlier run as it was."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)

    def contents():
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    before, report = contents(), draw(None, None)
    with pytest.raises(TypeError):
        report._replace(rows=[{"name": "other"}, {"name": object()}]).write(tmp_path, "toy")
    assert contents() == before

    def stops_half_way(self, file, **options):
        write = file.write if hasattr(file, "write") else file.write_bytes
        write(b"half")
        raise OSError

    monkeypatch.setattr(Figure, "savefig", stops_half_way)
    with pytest.raises(OSError):
        report.write(tmp_path, "toy")
    assert contents() == before


def test_the_command_writes_the_same_page_elsewhere(folder, tmp_path, monkeypatch, capsys):
    other = tmp_path / "page.html"
    monkeypatch.setattr(sys, "argv", ["report", str(folder), "--output", str(other)])
    assert command.main() == 0
    assert other.read_bytes() == (folder / "report.html").read_bytes()
    assert capsys.readouterr().out == f"{other}\n"
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path)])
    assert command.main() == 2
    assert "holds no run" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(path.parent.name for path in RESULTS.glob("*/config.json")))
def test_the_results_of_the_repository_have_a_report(name, tmp_path):
    path = command.write_html(RESULTS / name, tmp_path / "page.html")
    reader = html_pages.read(path)
    assert "Results" in reader.headings and "Configuration" in reader.headings
    # The headline is read from the drawing: a sentence, and not the name of the file.
    assert all(" " in figure["title"] for figure in reader.figures)
    assert len(reader.figures) == len([*(RESULTS / name).glob("*.svg")])


def test_what_the_page_has_no_room_for_is_named(monkeypatch, folder):
    monkeypatch.setattr(page, "MAX_BYTES", page._RESERVED + 2000)
    small = Page("title", "words")
    small.figure((folder / "toy.svg").read_text(), "toy.svg")
    assert "<img" not in small.html() and "toy.svg is too large for this page" in small.html()


def test_a_drawing_without_a_headline_has_none():
    assert headline("<svg><g id='figure_1'><g id='axes_1'/></g></svg>") == ("", "")
