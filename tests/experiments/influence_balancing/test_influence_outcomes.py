"""The four outcomes and their borders."""

import numpy as np
import pytest

from experiments.influence_balancing import outcomes

OPTIMUM = -1 / 6
START = 0.5 - OPTIMUM


@pytest.mark.parametrize(
    ("theta", "expected"),
    [
        (OPTIMUM, outcomes.CONVERGED),
        (OPTIMUM - 0.999e-3, outcomes.CONVERGED),
        (OPTIMUM + 1.001e-3, outcomes.NOT_YET),
        (0.5, outcomes.NOT_YET),
        (0.501, outcomes.WRONG_DIRECTION),
        (OPTIMUM - 1.01 * START, outcomes.WRONG_DIRECTION),  # as far off on the other side
        (OPTIMUM + 99 * START, outcomes.WRONG_DIRECTION),
        (OPTIMUM + 101 * START, outcomes.DIVERGED),
        (1e300, outcomes.DIVERGED),
        (np.inf, outcomes.DIVERGED),
        (-np.inf, outcomes.DIVERGED),
        (np.nan, outcomes.DIVERGED),
    ],
)
def test_borders(theta, expected):
    labels = outcomes.classify(np.array([theta]), theta_0=0.5, optimum=OPTIMUM, tolerance=1e-3)
    assert labels.tolist() == [expected]


def test_shares_and_main_failure():
    labels = outcomes.classify(
        np.array([OPTIMUM, OPTIMUM, 0.4, 0.3, np.nan]), theta_0=0.5, optimum=OPTIMUM, tolerance=1e-3
    )
    share = outcomes.shares(labels)
    assert share == {"converged": 0.4, "not yet": 0.4, "wrong direction": 0.0, "diverged": 0.2}
    assert outcomes.most_frequent(share) == outcomes.CONVERGED  # the first of two
    assert outcomes.main_failure(share) == outcomes.NOT_YET
    assert outcomes.main_failure(outcomes.shares(labels[:2])) is None


def test_recovered_runs_are_told_apart():
    labels = np.array([outcomes.CONVERGED, outcomes.CONVERGED, outcomes.DIVERGED])
    recovered = outcomes.recovered(
        labels, np.array([0.5, 1e6, np.nan]), theta_0=0.5, optimum=OPTIMUM
    )
    assert recovered.tolist() == [False, True, False]
