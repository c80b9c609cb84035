"""The checks of single fields: what passes, and the words for what does not."""

import pytest

from experiments.common import fields
from experiments.common.errors import ConfigError
from experiments.common.fields import Field

CASES = [
    (fields.at_least(2), (2, 3.5, (2, 3)), [(1, "given 1: expected at least 2"), ((), "is empty")]),
    (fields.at_least(2, "too few"), (2,), [(1, "x was given 1: too few"), (float("nan"), "nan")]),
    (fields.whole(1), (1, (1, 2)), [(1.0, "integers, 1 or more"), (True, "integers"), ((0,), "0")]),
    (fields.positive, (0.1, (1, 2.0)), [(0, "more than 0"), ((1, -1), r"\(1, -1\).*above 0")]),
    (fields.between(0, 1), (0.5,), [(0, "between 0 and 1"), (1, "between")]),
    (fields.share, (0.5, 1), [(0, "at most 1"), (1.1, "at most 1")]),
    (
        fields.one_of("a", "b"),
        ("a", ("a", "b")),
        [("c", "'c' is unknown.*a, b"), (("a", "c"), "c")],
    ),
    (fields.each_once, ((1, 2),), [((1, 1), "once"), ((), "is empty")]),
    (fields.rising, ((1, 2), (1,)), [((2, 1), "rising"), ((1, 1), "once")]),
    (fields.seed, (0, 2**32 - 1), [(-1, "seed|x is -1"), (2**32, "expected")]),
    (fields.arms(), (("bptt", "tbptt(2)"),), [(("tbptt(2)", "tbptt(length=2)"), "once")]),
    (
        fields.arms(finite_variance=True),
        (("artbp(8, alpha=3.1)", "artbp(8, law='geometric')"),),
        [(("artbp(8, alpha=3)",), "more than 3")],
    ),
]


@pytest.mark.parametrize(("check", "good", "bad"), CASES)
def test_a_check_refuses_with_the_name_and_the_value(check, good, bad):
    for value in good:
        check("x", value)
    for value, words in bad:
        with pytest.raises(ConfigError, match=words):
            check("x", value)


def test_fields_make_a_configuration_and_check_it():
    declared = {"rate": Field(0.1, "of SGD", fields.positive), "name": Field("a", "anything")}
    config = fields.default_config(declared)
    assert config.to_dict() == {"rate": 0.1, "name": "a"}
    fields.check_config(declared, config)
    config.rate = -1.0
    with pytest.raises(ConfigError, match="rate was given"):
        fields.check_config(declared, config)
    assert fields.describe(declared) == ["rate=0.1: of SGD", "name=a: anything"]
