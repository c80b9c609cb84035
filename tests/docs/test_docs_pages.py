"""The programs of the site's pages run as they stand.

The blocks of a section (`## ...`) run one after the other, after the program of the first page: so
a short example may use its names, as the first page says.
"""

import re
from pathlib import Path

import jax
import pages
import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Pages with a test of their own.
ELSEWHERE = {
    "beyond_sequence_models.md": "tests/experiments/test_docs_beyond_sequence_models.py",
    "choosing.md": "tests/diagnostics/test_docs_choosing.py",
    "coming_from.md": "tests/test_coming_from.py",
    "devices.md": "tests/docs/test_docs_devices.py",
    "index.md": "tests/docs/test_docs_pages.py",
    "recipes.md": "tests/test_recipes.py",
    "tour.md": "tests/docs/test_docs_pages.py",
    "your_model.md": "tests/adapters/test_docs_your_model.py",
}
SECTIONS = [
    (str(path.relative_to(DOCS)), section.partition("\n")[0])
    for path in sorted(DOCS.rglob("*.md"))
    if path.name not in ELSEWHERE
    for section in path.read_text().split("\n## ")
    if pages.blocks(section)
]


@pytest.fixture(scope="module")
def first_page():
    """The program of the first page: (its names, what it prints)."""
    namespace = {}
    path = DOCS / "index.md"
    return namespace, pages.run(pages.blocks(path.read_text()), path, namespace)


def test_the_program_of_the_first_page_learns(first_page):
    losses = [float(line.rpartition(" ")[2]) for line in first_page[1].splitlines()]
    assert len(losses) == 5
    assert losses[-1] < 0.3  # 3 without training


@pytest.mark.parametrize(("page", "section"), SECTIONS)
def test_the_programs_of_a_section_run(page, section, first_page):
    text = (DOCS / page).read_text()
    (section,) = [part for part in text.split("\n## ") if part.partition("\n")[0] == section]
    pages.run(pages.blocks(section), DOCS / page, dict(first_page[0]))


def test_pages_with_a_test_of_their_own_have_it():
    for page, test in ELSEWHERE.items():
        assert pages.blocks((DOCS / page).read_text())
        assert page in (ROOT / test).read_text()


def test_the_tour_prints_what_it_shows():
    path = DOCS / "tour.md"
    text = path.read_text()
    with jax.enable_x64(True):  # afterwards JAX's default again; the tour sets it for itself
        printed = pages.run(pages.blocks(text), path, {})
    jax.config.update("jax_enable_x64", False)
    pages.check_printed(printed, pages.blocks(text, "text").replace("\n\n", "\n"))


def test_the_lines_of_a_block_fit_the_page():
    """docs/_static/custom.css sets the size of the code for lines of 100 characters."""
    fenced = re.compile(r"^```([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
    lines = [
        (path.name, line)
        for path in sorted(DOCS.rglob("*.md"))
        for language, block in fenced.findall(path.read_text())
        for line in block.splitlines()
        if not language.startswith("{")
    ]
    assert len(lines) > 100
    assert [(name, line) for name, line in lines if len(line) > 100] == []
