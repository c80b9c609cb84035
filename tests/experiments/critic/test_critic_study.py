"""The experiment at a tiny size."""

import json

import jax
import numpy as np

from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.critic.__main__ import STUDY
from experiments.critic.systems import SYSTEMS
from experiments.critic.training import ARMS, Training

TINY = (
    "num_steps=1000",
    "systems=('balancing',)",
    "learning_rates=(1e-2,)",
    "num_tuning_runs=1",
    "num_seeds=2",
    "variance_draws=4",
    "critic_units=4",
)


def load(*overrides):
    return load_config(STUDY.default_config(), None, (*TINY, *overrides))


def test_from_end_to_end(tmp_path):
    workdir = tmp_path / "run"
    STUDY.main(load(), CommandLine(workdir, False, False, None))
    rows = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    assert [row["arm"] for row in rows] == list(ARMS)
    for row in rows:
        assert np.isfinite(row["last_loss"]).all()
        assert (row["explained_last"] is not None) == ARMS[row["arm"]].has_critic
    # All arms begin with the same model on the same stream.
    first = np.array([row["losses"] for row in rows])[:, :, 0]
    assert np.ptp(first, axis=0).max() < 0.2 * first.min()
    assert min(rows[-1]["variance_early"] + rows[-1]["variance_last"]) > 0
    assert (workdir / "critic.png").is_file()


def test_a_critic_begins_with_zeros():
    for make in SYSTEMS.values():
        training = Training(make(), ARMS["unbiased_critic"], load())
        params, carry = training.init(jax.random.key(0))
        predicted = training._critic(params, carry)
        assert jax.tree.map(np.shape, predicted) == jax.tree.map(np.shape, carry)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(predicted))
