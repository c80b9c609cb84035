"""The code of the page "Choosing a truncation" runs unchanged and prints the text of the page."""

import re
from pathlib import Path

import numpy as np
import pytest
from pages import blocks, check_printed, run

PAGE = Path(__file__).parents[2] / "docs" / "choosing.md"


def shown_by(page):
    """What the page says that its programs print: sentences, a table, and a text block.

    The params are drawn, not trained, so other versions of JAX and other processors change the
    numbers by rounding only.
    """
    report = re.search(r"^It prints .*?:\n(.*?)^It also draws", page, re.DOTALL | re.MULTILINE)
    assert report is not None
    shown = report[1] + blocks(page, "text")
    return [line.removeprefix("> ") for line in shown.splitlines() if line]


def test_the_code_of_the_page_prints_what_the_page_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it saves a figure
    page = PAGE.read_text(encoding="utf-8")
    printed = [line for line in run(blocks(page), PAGE, {}).splitlines() if line]
    check_printed("\n".join(printed), "\n".join(shown_by(page)))
    assert (tmp_path / "truncation.svg").stat().st_size > 10_000


def test_a_different_text_is_detected():
    shown = "TBPTT 16: bias 0.21 [0.12, 0.27]\nmemory of 1,061 steps"
    check_printed(shown.replace("0.21", "0.22"), shown)  # rounding
    for old, new in [("0.21", "0.25"), ("16", "18"), ("1,061", "1,161"), ("bias", "noise")]:
        with pytest.raises(AssertionError):
            check_printed(shown.replace(old, new), shown)


def test_its_numbers_of_the_bias_experiment_are_those_of_the_table():
    """The numbers in the text of the page equal those of the committed table."""
    text = (PAGE.parents[1] / "experiments/results/bias/table.md").read_text(encoding="utf-8")
    rows = {
        tuple(cells[:2]): cells
        for cells in ([c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines())
        if len(cells) == 13
    }

    def bias(estimator):
        return float(rows["characters", estimator][4].split()[0])

    def to_data(problem, estimator):
        return float(rows[problem, estimator][10].split()[0])

    noise = re.search(r"characters: .*Data noise is ([\d.]+) times", text)
    assert noise is not None
    data = float(noise[1])
    said = [
        bias("TBPTT 16"),
        bias("TBPTT 64"),
        data,
        (data / bias("TBPTT 64")) ** 2,
        to_data("characters", "ARTBP 16, α = 4"),
        to_data("long memory", "ARTBP 16, α = 4"),
        to_data("long memory", "ARTBP 8, geometric"),
        to_data("balancing", "ARTBP 64, α = 4"),
    ]
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    found = re.search(
        r"TBPTT 16 lacks ([\d.]+) % of the gradient and TBPTT 64 ([\d.]+) %.*?one window's data "
        r"noise is ([\d.]+) %: averages over about ([\d.]+) windows.*?adds "
        r"([\d.]+) % to the variance.*?"
        r"`polynomial\(16, 4\)` has ([\d.]+) times.*?`geometric\(8\)` ([\d.]+) · 10⁸ times.*?"
        r"`polynomial\(64, 4\)` has ([\d.]+) times",
        page,
    )
    scale = np.array([100, 100, 100, 1, 100, 1, 1e-8, 1])
    assert found is not None
    np.testing.assert_allclose(
        [float(number) for number in found.groups()], scale * said, rtol=0.03
    )
