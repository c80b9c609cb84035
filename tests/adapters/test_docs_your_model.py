"""`docs/your_model.md`: its examples run, each after the block that they share, and they learn."""

import importlib.util
import re
from pathlib import Path

import jax
import pytest

PAGE = Path(__file__).parent.parent.parent / "docs" / "your_model.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)

SHARED, *SECTIONS = PAGE.read_text().split("\n## ")
EXAMPLES = {
    section.split("\n", 1)[0]: "\n".join(BLOCK.findall(section))
    for section in SECTIONS
    if BLOCK.search(section)
}


def test_the_page_has_an_example_for_each_library():
    assert {"flax nnx", "flax linen", "haiku", "equinox"} <= set(EXAMPLES)
    lengths = {title: len(re.findall(r"\S.*\n", code)) for title, code in EXAMPLES.items()}
    assert {title for title, lines in lengths.items() if lines > 20} == set()


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_runs_and_learns(title, capsys, strict_promotion):
    if title in ("haiku", "equinox") and importlib.util.find_spec(title) is None:
        pytest.skip(f"{title} is not installed")
    code = "\n".join([*BLOCK.findall(SHARED), EXAMPLES[title]])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(code, str(PAGE), "exec"), names := {})
    losses = re.findall(r"^loss ([0-9.e-]+)$", capsys.readouterr().out, re.MULTILINE)
    assert len(losses) == len(re.findall(r"\btrain\(", EXAMPLES[title]))
    assert all(float(loss) < 1 for loss in losses)
    result = names.get("result")  # of artbp.evaluate, without dropout
    assert (result is not None) == (title == "flax nnx")
    assert result is None or result.loss_sum / result.num_losses < 1
