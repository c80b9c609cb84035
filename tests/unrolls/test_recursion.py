"""The recursion: it is in one place, a few frames from `estimate`, and follows its equation."""

import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import artbp
from artbp import truncation
from artbp.unrolls import recursion

pytestmark = pytest.mark.usefixtures("float64")

LIBRARY = Path(artbp.__file__).parent


def test_it_follows_the_equation():
    """δ_t = e_t + gate_t A_{t+1}ᵀ δ_{t+1} with explicit matrices, a reset and a missing step.

    For five steps of which step 3 does not exist in row 1, and step 2 begins with a reset.
    """
    num_steps, size = 5, 3
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(num_steps, size, size))  # A_t = ∂s_t/∂s_{t−1}
    errors = rng.normal(size=(num_steps, 2, size))  # e_t = ∂ℓ_t/∂s_t
    gates = rng.uniform(0.5, 2, size=(num_steps, 2))
    gates[1, 0] = 0.0
    resets = np.arange(num_steps) == 2
    taken = np.ones((num_steps, 2), bool)
    taken[3, 1] = False
    flow = rng.normal(size=(2, size))

    def pull_back(t, cotangent):
        delta = jnp.asarray(errors)[t] + cotangent
        return delta, delta @ jnp.asarray(matrices)[t]

    found, deltas = recursion.backpropagate(
        pull_back,
        recursion.store,
        jnp.asarray(flow),
        jnp.zeros((num_steps, 2, size)),
        count=num_steps,
        gates=jnp.asarray(gates),
        resets=jnp.asarray(resets),
        taken=jnp.asarray(taken),
    )
    expected = np.zeros((num_steps, 2, size))
    for row in range(2):
        flowing = flow[row]
        for t in reversed(range(num_steps)):
            if not taken[t, row]:
                continue
            expected[t, row] = errors[t, row] + gates[t, row] * flowing
            flowing = np.zeros(size) if resets[t] else matrices[t].T @ expected[t, row]
        np.testing.assert_allclose(found[row], flowing, rtol=1e-13)
    np.testing.assert_allclose(deltas, expected, rtol=1e-13)


def test_no_other_module_runs_it():
    """A factor on a cotangent is applied by the gate itself and by the recursion, nowhere else."""
    users = {
        path.relative_to(LIBRARY).as_posix()
        for path in LIBRARY.rglob("*.py")
        if "cut_or_scale" in path.read_text()
    }
    # look_back gates the flow between two windows.
    assert users == {"unrolls/gate.py", "unrolls/recursion.py", "unrolls/look_back.py"}
    callers = {
        path.relative_to(LIBRARY).as_posix()
        for path in LIBRARY.rglob("*.py")
        if "backpropagate(" in path.read_text()
    }
    assert {"unrolls/chunk.py", "unrolls/fused.py", "estimators/carry_ring.py"} < callers


@pytest.mark.parametrize("policy", ["dynamic", "exact"])
def test_it_is_seven_frames_from_estimate(policy, monkeypatch):
    """The functions of this package between a user's call and the equation, by a traceback."""
    found = []

    def spy(leaf, gate):
        frames = [frame for frame in traceback.extract_stack() if str(LIBRARY) in frame.filename]
        found.append([frame.name for frame in frames if frame.name != "<lambda>"])
        return cut_or_scale(leaf, gate)

    cut_or_scale = recursion.cut_or_scale
    monkeypatch.setattr(recursion, "cut_or_scale", spy)

    def cell(params, carry, x):
        carry = jnp.tanh(params * carry + x)
        return carry, carry

    estimator = artbp.artbp(
        cell, lambda params, y, target: y**2, truncation.polynomial(4, 4), policy=policy
    )
    state = estimator.init(jnp.array(0.5), jnp.ones(2), rng_key=jax.random.key(0))
    estimator.estimate(jnp.array(0.5), state, artbp.Stream(jnp.ones((20, 2))))
    assert found
    for names in found:
        assert names[0] == "estimate"
        assert names[-2:] == ["backpropagate", "step"]
        assert len(names) <= 7, names
