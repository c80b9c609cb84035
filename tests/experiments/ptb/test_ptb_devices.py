"""A run on 8 virtual devices, killed, resumed on 4: the run of one device up to rounding."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import jax
import pytest

from experiments.common import devices
from experiments.common.errors import ConfigError

HERE = pathlib.Path(__file__).parent
RUN = """
import os, pathlib, signal, sys
import tiny_ptb
from experiments.common.checkpoints import Checkpoints
from experiments.common.config import load_config
from experiments.ptb.config import default_config
from experiments.ptb.run import run

folder = pathlib.Path(sys.argv[1])
config = load_config(default_config(), overrides=[*tiny_ptb.OVERRIDES, "batch=8"])

def train(name, num_devices, resume=False):
    return run(config, tiny_ptb.command_line(folder / name, resume), None, num_devices)
"""
KILLED = """
save = Checkpoints.save_latest
def save_and_die(self, number, *rest):
    save(self, number, *rest)
    if number > 0:
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoints.save_latest = save_and_die
train("run", 8)
"""
RESUMED = """
found, expected = train("run", 4, resume=True), train("one", 1)
assert found["updates"] == expected["updates"]
for name in ("valid_bpc", "test_bpc"):
    assert abs(found[name] - expected[name]) < 1e-4, (found[name], expected[name])
"""


def _python(code, folder):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    path = os.pathsep.join(map(str, (HERE.parents[2], HERE)))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RUN + code), str(folder)],
        env={**os.environ, "PYTHONPATH": path, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_killed_on_8_devices_and_resumed_on_4(tmp_path):
    killed = _python(KILLED, tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    resumed = _python(RESUMED, tmp_path)
    assert resumed.returncode == 0, resumed.stderr[-2000:]


def test_refusals():
    assert devices.read_number("all") == jax.device_count()
    for text in ("0", "-1", "many", str(jax.device_count() + 1)):
        with pytest.raises(ConfigError, match="expected 'all' or a number from 1 to"):
            devices.read_number(text)
    with pytest.raises(ConfigError, match="batch is 6, which 4 devices cannot share"):
        devices.check(4, 6, "compiled")
    with pytest.raises(ConfigError, match="'host': expected 'compiled' with several devices"):
        devices.check(2, 6, "host")
