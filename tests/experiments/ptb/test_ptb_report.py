"""The arithmetic and the wording of a study's table."""

import math

import numpy as np
import pytest

from experiments.ptb_study import report
from experiments.ptb_study.report import Difference, Run

REFERENCES = {"tbptt": None, "artbp": "tbptt"}


def _row(purpose, arm, rate, seed, valid=1.5, test=1.4, failure=None):
    return Run(purpose, arm, rate, seed).row(
        None if failure else valid, None if failure else test, failure
    )


def test_interval_by_hand():
    # t(0.975, 2 degrees of freedom) = 4.30265; the standard deviation of 1, 2, 3 is 1.
    found = report.difference([1.0, 2.0, 3.0])
    assert found.mean == pytest.approx(2.0)
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert str(found) == "+2.0000 ± 2.4841"
    assert math.isnan(report.difference([1.0]).half_width)
    assert str(report.difference([1.0])) == "+1.0000"
    assert math.isnan(report.difference([]).mean) and str(report.difference([])) == ""


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [report.difference(rng.normal(0.3, 2.0, 3)) for _ in range(4000)]
    covered = np.mean([abs(i.mean - 0.3) <= i.half_width for i in intervals])
    # Five standard errors of a share of 0.95 over 4000 draws: false alarms below 1e-6.
    assert abs(covered - 0.95) < 5 * math.sqrt(0.95 * 0.05 / 4000)


def test_differences_are_paired_by_seed_and_failures_left_out():
    rows = [
        _row("compare", "artbp", 1e-3, 1, test=1.30),
        _row("compare", "artbp", 1e-3, 2, test=1.35),
        _row("compare", "artbp", 1e-3, 3, test=9.0),
        _row("compare", "tbptt", 2e-3, 2, test=1.33),
        _row("compare", "tbptt", 2e-3, 1, test=1.31),
        _row("compare", "tbptt", 2e-3, 3, failure="diverged"),
        _row("tune", "tbptt", 2e-3, 0, test=7.0),
    ]
    differences = report.paired_differences(rows, "artbp", "tbptt", "test_bpc")
    assert differences == pytest.approx([-0.01, 0.02])
    assert report.difference(differences).mean == pytest.approx((-0.01 + 0.02) / 2)


def test_best_rate_is_by_validation_among_the_tuning_runs():
    rows = [
        _row("tune", "artbp", 1e-3, 0, valid=1.6, test=1.0),
        _row("tune", "artbp", 2e-3, 0, valid=1.5, test=2.0),
        _row("tune", "artbp", 4e-3, 0, failure="diverged"),
        _row("tune", "tbptt", 4e-3, 0, valid=1.0),
        _row("compare", "artbp", 1e-3, 1, valid=0.5),
    ]
    assert report.choose_rate(rows, "artbp").rate == 2e-3
    assert report.choose_rate(rows, "uncompensated") is None
    # A second tuning seed: the best mean, and never a rate that failed on one of them.
    rows += [
        _row("tune", "artbp", 1e-3, 9, valid=1.6),
        _row("tune", "artbp", 2e-3, 9, valid=1.8),
        _row("tune", "artbp", 5e-4, 0, valid=1.0),
        _row("tune", "artbp", 5e-4, 9, failure="diverged"),
    ]
    assert report.choose_rate(rows, "artbp").rate == 1e-3
    assert report.choose_rate([_row("tune", "artbp", 1e-3, 0, failure="diverged")], "artbp").failed


@pytest.mark.parametrize(
    ("found", "expected", "absent"),
    [
        (Difference(-0.02, 0.03, 3), "do not tell the two apart", "better"),
        (Difference(-0.02, 0.01, 3), "lower (better) by 0.0100 to 0.0300", "worse"),
        (Difference(0.02, 0.01, 3), "higher (worse) by 0.0100 to 0.0300", "better"),
        (Difference(0.02, 0.02, 3), "do not tell the two apart", "worse"),
        (Difference(-0.5, math.nan, 1), "Nothing is claimed", "-0.5"),
        (Difference(math.nan, math.nan, 0), "Nothing is claimed", "nan"),
    ],
)
def test_the_sentence_claims_no_more_than_the_interval(found, expected, absent):
    sentence = report.verdict("artbp", "tbptt", found, found.n, [])
    assert expected in sentence and absent not in sentence


def test_nothing_is_claimed_of_the_seeds_that_happened_to_finish():
    given = [("artbp", 1, 1.1), ("artbp", 2, 1.1), ("tbptt", 1, 1.3), ("tbptt", 2, 1.3001)]
    rows = [_row("compare", arm, 1e-3, seed, test=test) for arm, seed, test in given]
    complete = report.markdown(rows, REFERENCES, [1, 2], "")
    assert "lower (better)" in complete
    assert "initial parameters and truncation draws only" in complete, "without tuning too"
    rows.append(_row("compare", "artbp", 1e-3, 3, failure="diverged, see logs/x.log"))
    text = report.markdown(rows, REFERENCES, [1, 2, 3], "")
    assert (
        "artbp against tbptt: 2 of 3 seeds; artbp diverged on seed 3, tbptt has not finished on "
        "seed 3. Nothing is claimed."
    ) in text
    assert "better" not in text
    assert "against" not in report.markdown(rows, {"artbp": "tbptt"}, [1, 2, 3], "")


def test_table_of_an_unfinished_study_shows_what_there_is():
    rows = [
        _row("tune", "tbptt", 1e-3, 0, valid=1.7),
        _row("tune", "tbptt", 2e-3, 0, valid=1.6),
        _row("tune", "artbp", 1e-3, 0, failure="diverged, see logs/x.log"),
        _row("compare", "tbptt", 2e-3, 1, valid=1.61234, test=1.51234),
    ]
    text = report.markdown(rows, REFERENCES, [1], "SETTING")
    assert "| tbptt | 0.002 | 1 | 1.6123 | 1.5123 |" in text
    assert "| artbp | 0.001 | 0 | diverged, see logs/x.log |  |" in text
    assert "yes, at the edge of the grid" in text and "SETTING" in text
    assert "Nothing is claimed" in text and "nan" not in text
    assert Run("tune", "artbp", 1e-3, 0).row(failure="diverged")["valid_bpc"] is None
