"""The programs in the pages: how tests find them, run them, and compare what they print."""

import contextlib
import io
import re

import jax
import pytest

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?")


def blocks(page, language="python"):
    """Concatenates the fenced blocks of a language."""
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE))


def run(code, path, namespace):
    """Runs a program in a namespace with JAX's defaults, as a user does; returns what it prints."""
    printed = io.StringIO()
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        contextlib.redirect_stdout(printed),
    ):
        exec(compile(code, str(path), "exec"), namespace)
    return printed.getvalue()


def check_printed(printed, shown):
    """Words must be equal; numbers may differ by 2 %, or by one unit of the last digit shown.

    Other versions of JAX and other processors change the numbers by rounding only.
    """
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", shown)
    for found, expected in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        digits, _, exponent = expected.replace(",", "").partition("e")
        unit = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
        value = float(expected.replace(",", ""))
        tolerance = max(1.01 * unit, 0.02 * abs(value))
        assert float(found.replace(",", "")) == pytest.approx(value, abs=tolerance)
