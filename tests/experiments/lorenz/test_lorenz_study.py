"""The experiment at a tiny size; the system by hand; where the groups of particles begin."""

import json

import jax
import numpy as np
import pytest

from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.lorenz import variances
from experiments.lorenz.__main__ import STUDY
from experiments.lorenz.system import ARMS, TRUTH, make_system
from experiments.lorenz.training import staggered_states

TINY = (
    "num_steps=12",
    "truncation_length=3",
    "num_particles=8",
    "num_updates=4",
    "num_points=2",
    "learning_rates=(1e-2, 1e-1)",
    "num_tuning_runs=1",
    "num_seeds=2",
    "variance_draws=20",
)


def load(*overrides):
    return load_config(STUDY.default_config(), None, (*TINY, *overrides))


def test_the_system_by_hand(float64):
    system = make_system(load("dt=0.01"))
    x, y, z = 1.2, 1.3, 1.6
    for target in np.asarray(system.stream.targets[:, 0]):
        dx, dy, dz = 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z
        x, y, z = x + 0.01 * dx, y + 0.01 * dy, z + 0.01 * dz
        assert z == pytest.approx(target, rel=1e-6)
    assert float(system.mean_loss(TRUTH)) == 0
    assert float(system.mean_loss(system.params)) > 1e-4


@pytest.mark.parametrize("name", ["nres", "tbptt"])
def test_the_groups_begin_at_all_places(name):
    config = load()
    system = make_system(config)
    estimator = ARMS[name].build(system, config, 2)
    states = staggered_states(estimator, system, 4, jax.random.key(0))
    np.testing.assert_array_equal(states.position, [0, 3, 6, 9])
    np.testing.assert_array_equal(states.carry[0], system.carry)
    assert not np.array_equal(states.carry[1], system.carry)


def test_perturbations_last_from_one_unroll_to_the_trajectory():
    assert variances.lasting(load()) == [3, 6, 12]
    assert variances.lasting(STUDY.default_config()) == [100, 200, 400, 500, 1000, 2000]


def test_from_end_to_end(tmp_path):
    workdir = tmp_path / "run"
    arms = ["tbptt", "nres"]
    STUDY.main(load(f"arms={tuple(arms)}"), CommandLine(workdir, False, False, None))
    rows = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    assert [row["arm"] for row in rows if row["part"] == "training"] == arms
    measured = [row for row in rows if row["part"] == "variance"]
    assert [row["draw_every"] for row in measured] == [3, 6, 12]
    assert measured[0]["ratio"] == 1
    assert all(np.isfinite(row["variance"]) and row["variance"] > 0 for row in measured)
    tbptt = rows[0]
    assert max(tbptt["last_loss"]) < tbptt["first_loss"]
    assert (workdir / "lorenz.png").is_file()
