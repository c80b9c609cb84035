"""The arithmetic and the wording of a study's table."""

import math

import numpy as np
import pytest

from experiments.ptb_study import report
from experiments.ptb_study.arms import Arm
from experiments.ptb_study.report import Interval, Outcome, Run

ARMS = {"tbptt": Arm((), (1e-3,), None), "artbp": Arm((), (1e-3,), "tbptt")}


def _outcome(purpose, arm, rate, seed, valid=1.5, test=1.4, failure=None):
    return Outcome(Run(purpose, arm, rate, seed), valid, test, failure)


def test_interval_by_hand():
    # t(0.975, 2 degrees of freedom) = 4.30265; the standard deviation of 1, 2, 3 is 1.
    interval = report.student_interval([1.0, 2.0, 3.0])
    assert interval.mean == pytest.approx(2.0)
    assert interval.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert (interval.low, interval.high) == (2 - interval.half_width, 2 + interval.half_width)
    assert math.isnan(report.student_interval([1.0]).half_width)
    assert math.isnan(report.student_interval([]).mean)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [report.student_interval(rng.normal(0.3, 2.0, 3)) for _ in range(4000)]
    covered = np.mean([i.low <= 0.3 <= i.high for i in intervals])
    # Five standard errors of a share of 0.95 over 4000 draws: false alarms below 1e-6.
    assert abs(covered - 0.95) < 5 * math.sqrt(0.95 * 0.05 / 4000)


def test_differences_are_paired_by_seed_and_failures_left_out():
    outcomes = [
        _outcome("compare", "artbp", 1e-3, 1, test=1.30),
        _outcome("compare", "artbp", 1e-3, 2, test=1.35),
        _outcome("compare", "artbp", 1e-3, 3, test=9.0),
        _outcome("compare", "tbptt", 2e-3, 2, test=1.33),
        _outcome("compare", "tbptt", 2e-3, 1, test=1.31),
        _outcome("compare", "tbptt", 2e-3, 3, failure="diverged"),
        _outcome("tune", "tbptt", 2e-3, 0, test=7.0),
    ]
    difference = report.paired_difference(outcomes, "artbp", "tbptt", "test_bpc")
    assert difference.n == 2
    assert difference.mean == pytest.approx((-0.01 + 0.02) / 2)


def test_best_rate_is_by_validation_among_the_tuning_runs():
    outcomes = [
        _outcome("tune", "artbp", 1e-3, 0, valid=1.6, test=1.0),
        _outcome("tune", "artbp", 2e-3, 0, valid=1.5, test=2.0),
        _outcome("tune", "artbp", 4e-3, 0, failure="diverged"),
        _outcome("tune", "tbptt", 4e-3, 0, valid=1.0),
        _outcome("compare", "artbp", 1e-3, 1, valid=0.5),
    ]
    assert report.best_rate(outcomes, "artbp") == 2e-3
    assert report.best_rate(outcomes, "uncompensated") is None
    # A second tuning seed: the best mean, and never a rate that failed on one of them.
    outcomes += [
        _outcome("tune", "artbp", 1e-3, 9, valid=1.6),
        _outcome("tune", "artbp", 2e-3, 9, valid=1.8),
        _outcome("tune", "artbp", 5e-4, 0, valid=1.0),
        _outcome("tune", "artbp", 5e-4, 9, failure="diverged"),
    ]
    assert report.best_rate(outcomes, "artbp") == 1e-3
    assert (
        report.best_rate([_outcome("tune", "artbp", 1e-3, 0, failure="diverged")], "artbp") is None
    )


@pytest.mark.parametrize(
    ("interval", "expected", "absent"),
    [
        (Interval(-0.02, 0.03, 3), "do not tell the two apart", "better"),
        (Interval(-0.02, 0.01, 3), "lower (better) by 0.0100 to 0.0300", "worse"),
        (Interval(0.02, 0.01, 3), "higher (worse) by 0.0100 to 0.0300", "better"),
        (Interval(0.02, 0.02, 3), "do not tell the two apart", "worse"),
        (Interval(-0.5, math.nan, 1), "Nothing is claimed", "-0.5"),
        (Interval(math.nan, math.nan, 0), "Nothing is claimed", "nan"),
    ],
)
def test_the_sentence_claims_no_more_than_the_interval(interval, expected, absent):
    sentence = report.verdict("artbp", "tbptt", interval, interval.n, [])
    assert expected in sentence and absent not in sentence


def test_nothing_is_claimed_of_the_seeds_that_happened_to_finish():
    rows = [("artbp", 1, 1.1), ("artbp", 2, 1.1), ("tbptt", 1, 1.3), ("tbptt", 2, 1.3001)]
    outcomes = [_outcome("compare", arm, 1e-3, seed, test=test) for arm, seed, test in rows]
    complete = report.markdown(outcomes, ARMS, [1, 2], "")
    assert "lower (better)" in complete
    assert "initial parameters and truncation draws only" in complete, "without tuning too"
    outcomes.append(_outcome("compare", "artbp", 1e-3, 3, failure="diverged, see logs/x.log"))
    text = report.markdown(outcomes, ARMS, [1, 2, 3], "")
    assert (
        "artbp against tbptt: 2 of 3 seeds; artbp diverged on seed 3, tbptt has not finished on "
        "seed 3. Nothing is claimed."
    ) in text
    assert "better" not in text
    assert "against" not in report.markdown(outcomes, {"artbp": ARMS["artbp"]}, [1, 2, 3], "")


def test_table_of_an_unfinished_study_shows_what_there_is():
    outcomes = [
        _outcome("tune", "tbptt", 1e-3, 0, valid=1.7),
        _outcome("tune", "tbptt", 2e-3, 0, valid=1.6),
        _outcome("tune", "artbp", 1e-3, 0, failure="diverged, see logs/x.log"),
        _outcome("compare", "tbptt", 2e-3, 1, valid=1.61234, test=1.51234),
    ]
    text = report.markdown(outcomes, ARMS, [1], "SETTING")
    assert "| tbptt | 0.002 | 1 | 1.6123 | 1.5123 |" in text
    assert "| artbp | 0.001 | 0 | diverged, see logs/x.log |  |" in text
    assert "yes, at the edge of the grid" in text and "SETTING" in text
    assert "Nothing is claimed" in text and "nan" not in text
    assert outcomes[2].as_row()["valid_bpc"] is None
