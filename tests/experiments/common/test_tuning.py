"""The choice of a learning rate, against cases worked out by hand."""

import types

import numpy as np
import pytest

from experiments.common.tuning import choose_rate, rate_text, run_keys, split

RATES = (0.1, 0.2, 0.4)


def test_the_rate_with_the_smallest_mean_is_chosen():
    choice = choose_rate(RATES, [[3.0, 1.0, 0.0], [3.0, 2.0, 4.0]])  # means 3, 1.5, 2
    assert (choice.rate, choice.index, choice.at_edge, choice.failed) == (0.2, 1, False, False)
    assert choice.scores == (3.0, 1.5, 2.0)
    assert choice.warning == ""


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_rate_with_one_run_that_is_not_finite_is_never_chosen(bad):
    choice = choose_rate(RATES, [[3.0, 1.0, 2.0], [3.0, bad, 2.0], [3.0, 1.0, 2.0]])
    assert choice.rate == 0.4
    assert choice.scores == (3.0, np.inf, 2.0)


def test_the_edge_of_the_grid_is_told():
    choice = choose_rate(RATES, [[1.0, 2.0, 3.0]])
    assert (choice.rate, choice.at_edge) == (0.1, True)
    assert "edge of the grid" in choice.warning
    # The order of the grid makes no difference.
    assert not choose_rate((0.2, 0.1, 0.4), [[1.0, 2.0, 3.0]]).at_edge
    assert (rate_text(0.1, True), rate_text(0.02, False)) == ("0.1\\*", "0.02")


def test_where_every_rate_fails_the_smallest_is_taken_and_said():
    choice = choose_rate((0.2, 0.1), [[np.nan, np.inf]])
    assert (choice.rate, choice.failed) == (0.1, True)
    assert "no rate" in choice.warning


def test_tuning_runs_are_no_reported_runs():
    config = types.SimpleNamespace(seed=3, num_tuning_runs=2, num_seeds=3)
    assert len(run_keys(config)) == 5
    assert split(list("abcde"), config) == (["a", "b"], ["c", "d", "e"])
