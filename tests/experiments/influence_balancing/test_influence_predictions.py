"""The closed-form fixed points against a recursion of the exact moments."""

import numpy as np
import pytest
from influence_twin import SIGNS, A, N

from experiments.common.arms import parse
from experiments.influence_balancing import predictions, system


def expected_gradients(theta, drive_noise, weights):
    """Σ_k weights_k · E[(s[0] − 1) · J^(k)[0]], by stepping E[s Jᵀ], J the sensitivity since a cut.

    s' = A s + θ x v and J' = A J + x v with x of mean 1 and variance σ²; J = 0 at the cut, where
    s is stationary.
    """
    mean_s = np.linalg.solve(np.eye(N) - A, theta * SIGNS)
    mean_j, cross, total = np.zeros(N), np.zeros((N, N)), 0.0
    for weight in weights:
        drive = np.outer(SIGNS, SIGNS)
        cross = (
            A @ cross @ A.T
            + np.outer(A @ mean_s, SIGNS)
            + theta * np.outer(SIGNS, A @ mean_j)
            + theta * (1 + drive_noise**2) * drive
        )
        mean_j = A @ mean_j + SIGNS
        total += weight * (cross[0, 0] - mean_j[0])
    return total


@pytest.mark.parametrize("drive_noise", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(
    "name", ["tbptt(10)", "tbptt(100)", "tbptt(200)", "uncompensated(16, alpha=4)"]
)
def test_expected_gradient_vanishes_at_the_fixed_point(name, drive_noise):
    arm = parse(name)
    weights = arm.law.survival(np.arange(4000))
    point = predictions.fixed_point(arm, drive_noise)
    at_point = expected_gradients(point.theta, drive_noise, weights)
    beside = expected_gradients(point.theta + 0.01, drive_noise, weights)
    assert at_point == pytest.approx(0.0, abs=1e-4 * abs(beside))
    assert point.slope == pytest.approx(beside / 0.01 / weights.sum(), rel=1e-3)


def test_compensated_arms_rest_at_the_optimum():
    for name in ("artbp(16, alpha=4)", "artbp(16, law='geometric')"):
        point = predictions.fixed_point(parse(name), 1.0)
        assert point.stable
        assert point.theta == predictions.optimum(1.0)
    # Beyond the memory of the system, TBPTT comes near.
    far = predictions.fixed_point(parse("tbptt(4000)"), 1.0)
    assert far.theta == pytest.approx(predictions.optimum(1.0), rel=0.02)


def test_optimum_minimises_the_loss_and_the_loss_does_not_vanish():
    optimum = predictions.optimum(1.0)
    losses = predictions.expected_loss(optimum + np.array([-1e-3, 0.0, 1e-3]), 1.0)
    assert losses[1] < min(losses[0], losses[2])
    assert losses[1] > 0.2


def test_without_noise_every_arm_has_the_same_fixed_point():
    for name in ("tbptt(10)", "tbptt(200)", "uncompensated(16, alpha=4)", "artbp(16, alpha=4)"):
        point = predictions.fixed_point(parse(name), 0.0)
        assert point.theta == pytest.approx(system.OPTIMAL_THETA, rel=1e-12)
    assert not predictions.fixed_point(parse("tbptt(10)"), 0.0).stable
    assert not predictions.fixed_point(parse("tbptt(100)"), 0.0).stable
    assert predictions.fixed_point(parse("tbptt(200)"), 0.0).stable
