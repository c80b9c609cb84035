"""The programs of the page "Beyond sequence models" run as they stand, and print what it says."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "beyond_sequence_models.md"
TEXT = PAGE.read_text(encoding="utf-8")
SHARED, *PROGRAMS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def printed(program, capsys):
    """Returns two rows, TBPTT and unbiased TBPTT: the learned params, then the result."""
    exec(compile(SHARED + program, str(PAGE), "exec"), {})
    text = capsys.readouterr().out
    lines = re.findall(r"\[([^]]*)\] +(?:loss|distance) (\S+)", text)
    return np.array([[*map(float, params.split()), float(result)] for params, result in lines])


def test_the_programs_are_short():
    lengths = [len(re.findall(r"\S.*\n", SHARED + program)) for program in PROGRAMS]
    assert len(lengths) == 2
    assert max(lengths) <= 30


def test_the_learned_schedule(capsys):
    truncated, unbiased = printed(PROGRAMS[0], capsys)
    np.testing.assert_allclose(truncated, [0.85, 0.07, 0.06, 0.27], rtol=0.3)
    np.testing.assert_allclose(unbiased[[0, 1, 3]], [0.96, 0.53, 0.20], rtol=0.2)


def test_the_learned_controller(capsys):
    truncated, unbiased = printed(PROGRAMS[1], capsys)
    assert truncated[4] == pytest.approx(0.67, abs=0.05)
    assert unbiased[4] < 0.15
    assert truncated[0] < 2 * unbiased[0] < 0  # larger gains
