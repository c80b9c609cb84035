"""`docs/your_model.md`: its examples run, each after the block that they share, and they learn."""

import importlib.util
import re
from pathlib import Path

import pages
import pytest

PAGE = Path(__file__).parent.parent.parent / "docs" / "your_model.md"
SHARED, *SECTIONS = PAGE.read_text().split("\n## ")
EXAMPLES = {
    section.split("\n", 1)[0]: code for section in SECTIONS if (code := pages.blocks(section))
}


def test_the_page_has_an_example_for_each_library():
    assert {"flax nnx", "flax linen", "haiku", "equinox"} <= set(EXAMPLES)
    lengths = {title: len(re.findall(r"\S.*\n", code)) for title, code in EXAMPLES.items()}
    assert {title for title, lines in lengths.items() if lines > 20} == set()


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_runs_and_learns(title):
    if title in ("haiku", "equinox") and importlib.util.find_spec(title) is None:
        pytest.skip(f"{title} is not installed")
    printed = pages.run(pages.blocks(SHARED) + EXAMPLES[title], PAGE, names := {})
    losses = re.findall(r"^loss ([0-9.e-]+)$", printed, re.MULTILINE)
    assert len(losses) == len(re.findall(r"\btrain\(", EXAMPLES[title]))
    assert all(float(loss) < 1 for loss in losses)
    result = names.get("result")  # of artbp.evaluate, without dropout
    assert (result is not None) == (title == "flax nnx")
    assert result is None or float(result.loss_sum) / int(result.num_losses) < 1
