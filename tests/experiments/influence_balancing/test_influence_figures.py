"""Labels that do not overlap, and quartiles that survive infinities."""

import numpy as np
import pytest

from experiments.common.figures import spread
from experiments.common.report import quartiles


@pytest.mark.parametrize(
    "heights", [[0.5], [0.0, 0.0, 0.0], [1.0, 0.1, 0.95, 0.11], [0.2, 0.4, 0.9], [1.0] * 12]
)
def test_labels_keep_their_distance_order_and_range(heights):
    gap, low, high = 0.1, 0.0, 1.0
    placed = spread(heights, gap=gap, low=low, high=high)
    assert placed.min() >= low - 1e-12
    assert placed.max() <= high + 1e-12
    expected_gap = min(gap, (high - low) / max(len(heights) - 1, 1))
    assert np.all(np.diff(np.sort(placed)) >= expected_gap - 1e-12)
    # Whoever was strictly lower stays lower.
    for i, a in enumerate(heights):
        for j, b in enumerate(heights):
            assert not (a < b) or placed[i] < placed[j]


def test_labels_that_do_not_touch_stay():
    np.testing.assert_allclose(spread([0.2, 0.9, 0.4], gap=0.1, low=0.0, high=1.0), [0.2, 0.9, 0.4])


def test_quartiles_with_infinities_and_nan():
    lower, median, upper = quartiles(np.array([1.0, np.nan, 2.0, np.inf, 3.0]))
    assert (lower, median) == (2.0, 3.0)
    assert upper == np.inf
