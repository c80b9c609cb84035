"""The comparison, small and from end to end, and the numbers that its table rests on."""

import json

import jax
import numpy as np

import artbp
from experiments.common.cli import CommandLine
from experiments.compare import __main__ as compare
from experiments.compare import problems, trainings
from experiments.compare.config import default_config
from experiments.compare.contenders import Size, contenders, matched_horizon
from experiments.influence_balancing import predictions, system


def small_config(**fields):
    config = default_config()
    values = {
        "mean_length": 4,
        "num_steps": 400,
        "num_learning_steps": 60,
        "num_seeds": 2,
        "sgd_rates": (1e-3, 1e-2),
        "adam_rates": (1e-2,),
        "distance": 5,
        "hidden_size": 3,
        "batch": 2,
        **fields,
    }
    config.update(values)
    return config


def test_every_row_of_the_registry_is_compared():
    names = [one.name for one in contenders(16)]
    assert set(names) == {*artbp.REGISTRY, "tbptt_matched"}
    labels = [one.label for one in contenders(16)]
    assert len(set(labels)) == len(labels)
    assert not any("{" in label for label in labels)


def test_from_end_to_end(tmp_path):
    config = small_config(
        estimators=("artbp_polynomial_4", "tbptt"),
        problems=("unroll_end", "learning"),
    )
    command_line = CommandLine(tmp_path, False, False, False)
    compare.main(config, command_line)
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["contender"] for row in rows] == ["tbptt", "artbp_polynomial_4"]
    for row in rows:
        of = row["unroll_end"]
        # The same budget for all: three evaluations for each of 400 steps.
        spent = of["num_steps"] * of["evaluations_per_time_step"]
        assert 0.9 * 1200 < spent <= 1200
        assert of["num_updates"] >= of["num_steps"] / 40
        assert row["learning"]["kilobytes"] > 0
    table = (tmp_path / "table.md").read_text()
    assert all(one.label in table for one in contenders(4) if one.name in config.estimators)
    assert (tmp_path / "compare.png").stat().st_size > 10_000
    assert (tmp_path / "compare.svg").exists()


def test_scores_are_of_the_best_rate():
    """With a rate of next to nothing in the grid, nothing moves there, and it is not chosen."""
    everything = {one.name: one for one in problems.problems(small_config())}
    everyone = {one.name: one for one in contenders(16)}
    config = small_config(num_steps=3000, sgd_rates=(1e-12, 1e-3))
    problem = everything["balancing"]
    problem = problems.influence_balancing("balancing", "", (1e-12, 1e-3))
    result = trainings.train(config, everyone["rtrl"], problem)
    assert result.rate == 1e-3
    assert result.scores.shape == (1,)
    assert result.scores[0] < 0.1
    wrong = trainings.train(config, everyone["tbptt"], problem)
    assert wrong.rate == 1e-12  # 16 steps back the sign is wrong: standing still is best
    np.testing.assert_allclose(wrong.scores, 1, rtol=1e-6)


def test_the_variants_of_influence_balancing():
    """Their optima are stationary points: the exact gradient vanishes there on average."""
    noisy = problems.influence_balancing("noisy", "", (1.0,), drive_noise=1.0)
    with jax.enable_x64(True):
        for theta, expected in ((predictions.optimum(1.0), 0.0), (0.5, 1.0)):
            score = noisy.score({"theta": jax.numpy.asarray(theta)}, None)
            np.testing.assert_allclose(score, expected, atol=1e-12)
        for sizes in (
            {"num_states": 11, "num_positive": 4},
            {"num_states": 47, "num_positive": 22},
        ):
            problem = problems.influence_balancing("other", "", (1.0,), **sizes)
            _, carry = problem.start(0)
            theta = {"theta": jax.numpy.asarray(-1 / 6)}  # 2 · (2 p − n) = −6 in both
            np.testing.assert_allclose(problem.score(theta, None), 0, atol=1e-9)
            for _ in range(2000):
                carry, y = problem.cell(theta, carry, 1.0)
            np.testing.assert_allclose(y, system.TARGET, rtol=1e-6)


def test_the_matched_horizon():
    """Of α = 4 it is close to 4 L0: the length of the segment that a random step is in."""
    assert matched_horizon(16) == 61
    assert matched_horizon(50) == 197  # the design's own number
    ages = np.arange(200_000)
    for mean_length, alpha in ((5, 4.5), (16, 6.0)):
        survival = artbp.truncation.polynomial(mean_length, alpha).survival(ages)
        summed = np.sum((2 * ages + 1) * survival) / mean_length  # E[L²] = Σ (2 k + 1) S(k)
        assert matched_horizon(mean_length, alpha) == round(summed)


def test_a_budget_pays_for_steps():
    everyone = {one.name: one for one in contenders(16)}
    problem = problems.influence_balancing("balancing", "", (1.0,))
    assert problem.size == Size(num_params=1, num_states=23)
    assert trainings.steps_within_budget(everyone["tbptt"], problem, 1000) == 1000
    assert trainings.steps_within_budget(everyone["artbp_geometric"], problem, 1000) == 1000
    assert trainings.steps_within_budget(everyone["tbptt_stored"], problem, 1000) == 600
    assert trainings.steps_within_budget(everyone["rtrl"], problem, 1000) == 1000
    assert trainings.steps_within_budget(everyone["snap1"], problem, 1000) == 3000 // 26
