"""Runs of a study over 8 virtual devices: those of one device, and nothing between the devices."""

import os

import pytest
from problems import run_python

from experiments.common import devices
from experiments.common.errors import ConfigError
from experiments.common.study import Study

EIGHT = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"


def test_runs_over_eight_devices_are_those_of_one():
    """Ten runs, in a while loop that ends at another time in each of them."""
    run_python(
        """
import jax, jax.numpy as jnp, numpy as np
from collectives import collectives
from experiments.common.devices import OverRuns, for_runs

def train(rate, key, first):
    length = jax.random.randint(key, (), 1, 20)

    def update(loop):
        step, param = loop
        return step + 1, param - rate * jnp.sin(param)

    return jax.lax.while_loop(lambda loop: loop[0] < length, update, (0, first))

def trained(number):
    with for_runs(number):
        all_runs = OverRuns(jax.vmap(train, (0, 0, None)), in_axes=(0, 0, None))
    keys = jax.random.split(jax.random.key(0), 10)
    compiled, run = all_runs.compile(np.linspace(0.1, 1.0, 10), keys, np.arange(3.0))
    return collectives(compiled.as_text()), run()

_, expected = trained(1)
between_devices, found = trained(8)
assert between_devices == ([], []), between_devices
assert len(set(np.asarray(found[0]))) > 1
jax.tree.map(lambda *pair: np.testing.assert_allclose(*pair, rtol=1e-6), found, expected)
""",
        XLA_FLAGS=EIGHT,
    )


def test_a_study_that_splits_no_runs_refuses_the_flag(monkeypatch):
    """And one that does gets the number."""
    monkeypatch.setattr(devices, "read_number", lambda text: 8)
    monkeypatch.setattr(devices, "FLAG", type("", (), {"value": "8"}))
    numbers = []

    class Noted(Study):
        def main(self, config, command_line):
            numbers.append(devices._num_for_runs)

    with pytest.raises(ConfigError, match=r"experiments\.critic uses one device"):
        Noted("critic", {}, run=None).main_on_devices(None, None)
    Noted("lorenz", {}, run=None, splits_runs=True).main_on_devices(None, None)
    assert numbers == [8] and devices._num_for_runs == 1
