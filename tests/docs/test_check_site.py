"""`docs/check_site.py` finds what is wrong with a site."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "check_site.py"

GOOD = """<link rel="stylesheet" href="_static/style.css"><h1 id="top-of-page">A page</h1>
<a href="other.html#section">a section</a> <a href="https://example.org/">outside</a>
<a href="other.html"><code>artbp.unroll</code></a> <code>artbp.unrolls.recursion</code>"""


@pytest.fixture(scope="module")
def problems():
    spec = importlib.util.spec_from_file_location("check_site", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.problems


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("other.html#section", "other.html#sections", "leads to no anchor"),
        ("other.html#section", "others.html#section", "leads to no file"),
        ("_static/style.css", "https://example.org/style.css", "loads https://example.org"),
        ("_static/style.css", "_static/styles.css", "leads to no file"),
        ("artbp.unrolls.recursion", "artbp.unrolls.recursions", "does not exist"),
        ("artbp.unrolls.recursion", "artbp.tbptt", "is public, and is no link"),
        ("A page", "A page <script src='//example.org/a.js'></script>", "loads //example.org"),
        ("A page", "A page <dt>Return type<span>:</span></dt>", "is taken for a type"),
        ("A page", '<ol class="upperalpha simple" start="4"></ol>', "is taken for a list"),
    ],
)
def test_a_problem_is_found(old, new, expected, problems, tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static/style.css").write_text("body { color: black; }")
    (tmp_path / "other.html").write_text('<h2 id="section">A section</h2>')
    (tmp_path / "index.html").write_text(GOOD)
    assert list(problems(tmp_path)) == []
    (tmp_path / "index.html").write_text(GOOD.replace(old, new))
    (found,) = problems(tmp_path)
    assert found.startswith("index.html: ")
    assert expected in found


def test_a_style_that_loads_a_font_from_a_network_is_found(problems, tmp_path):
    (tmp_path / "style.css").write_text("@font-face { src: url('https://example.org/font.woff') }")
    (found,) = problems(tmp_path)
    assert found == "style.css: loads https://example.org/font.woff"
