"""The bound on a clipped step: measured right, and not empty."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.common.arms import parse
from experiments.stability import bound, system
from experiments.stability.system import Clip

pytestmark = pytest.mark.usefixtures("float64")

CONFIG = types.SimpleNamespace(
    seed=0,
    num_rows=2,
    sequence_length=12,
    num_sequences=4,
    horizon=2,
    hidden_size=5,
    clipped_arm="artbp(4, alpha=4)",
    spectral_radii=(1.2,),
    clip_norm=0.5,
    bound_learning_rate=0.1,
    bound_updates=12,
    bound_points=5,
)


def test_a_clipped_run_against_a_loop_in_python_and_the_bound_at_every_step(monkeypatch):
    monkeypatch.setattr(bound, "row_of", lambda config, radius, steps: (radius, steps))
    ((radius, steps),) = bound.run(CONFIG)
    assert radius == 1.2
    monkeypatch.undo()
    row = bound.row_of(CONFIG, radius, steps)
    init_key, boundary_key = jax.random.split(jax.random.key(0))
    params = system.init(init_key, 5, 1.2)
    stream, fixed = system.sequences(CONFIG, 0, 4), system.sequences(CONFIG, 1)
    estimator = system.make_estimator(parse("artbp(4, alpha=4)"), CONFIG)
    state = estimator.init(params, jnp.zeros((2, 5)), rng_key=boundary_key)
    loss_and_gradient = jax.jit(jax.value_and_grad(system.mean_loss))
    clip = jax.jit(system.clip)
    for i in range(CONFIG.bound_updates):
        gradient, state, _ = estimator.estimate(params, state, stream)
        clipped = clip(gradient, Clip(norm_bound=0.5))
        along = [
            jax.tree.map(lambda x, g, f=f: x - f * 0.1 * g, params, clipped)
            for f in (0.0, 0.25, 0.5, 0.75, 1.0)
        ]
        found = [loss_and_gradient(point, fixed) for point in along]
        norms = [float(optax.tree.norm(gradient)) for _, gradient in found]
        change = abs(float(found[-1][0] - found[0][0]))
        assert steps["loss"][i] == pytest.approx(float(found[0][0]))
        assert steps["change"][i] == pytest.approx(change, rel=1e-6, abs=1e-12)
        assert steps["lipschitz"][i] == pytest.approx(max(norms))
        assert steps["gradient_norm"][i] == pytest.approx(float(optax.tree.norm(gradient)))
        assert steps["length"][i] <= 0.1 * 0.5 * (1 + 1e-9)
        assert change <= max(norms) * 0.1 * 0.5
        params = along[-1]
    assert row["num_held"] == row["num_steps"] == 12
    assert row["longest_step_ratio"] == pytest.approx(1)
    assert row["largest_ratio"] <= 1
    assert 0 < row["share_clipped"] <= 1


def test_the_largest_norm_may_lie_between_the_ends():
    fixed = system.sequences(CONFIG, 1)
    middle = system.init(jax.random.key(0), 5, 1.2)
    middle["readout"]["kernel"] = 10 * jnp.array([[1.0], [-1.0], [1.0], [-1.0], [0.0]])
    # At both ends all units are saturated: there the loss does not depend on the cell's weights.
    before, after = (
        middle | {"cell": middle["cell"] | {"bias": jnp.full(5, bias)}} for bias in (-50.0, 50.0)
    )
    ends = [jax.tree.map(lambda leaf: leaf[None], tree) for tree in (before, after)]
    gradient = jax.jit(jax.grad(system.mean_loss))
    norms = []
    for f in (0.0, 0.25, 0.5, 0.75, 1.0):
        point = jax.tree.map(lambda a, b, f=f: (1 - f) * a + f * b, before, after)
        norms.append(float(optax.tree.norm(gradient(point, fixed))))
    assert max(norms) > 2 * max(norms[0], norms[-1])
    lipschitz = bound.measure(*ends, fixed, 5)["lipschitz"]
    assert float(lipschitz[0]) == pytest.approx(max(norms))


def test_steps_that_break_the_bound_are_counted():
    def one(values):
        return np.array(values, float)

    steps = {
        "change": one([0.04, 0.06, 0.01]),
        "lipschitz": one([1.0, 1.0, 1.0]),
        "length": one([0.05, 0.06, 0.01]),
        "gradient_norm": one([2.0, 3.0, 0.1]),
        "loss": one([1.0, 0.9, 0.8]),
    }
    row = bound.row_of(CONFIG, 1.2, steps)  # η θ_c = 0.05
    assert (row["num_held"], row["num_steps"]) == (2, 3)
    assert row["largest_ratio"] == pytest.approx(1.2)
    assert row["median_ratio"] == pytest.approx(0.8)
    assert row["share_clipped"] == pytest.approx(2 / 3)
