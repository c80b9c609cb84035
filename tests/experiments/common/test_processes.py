"""Several processes over loopback: the params of one, and the end of all when one is lost."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run

from experiments.common import processes
from experiments.common.checkpoints import Checkpoints
from experiments.common.errors import ConfigError
from experiments.common.metrics import read_metrics

HERE = Path(__file__).parent


def start(folder, event, count, num_devices):
    """Starts `count` processes with so many devices each; returns their (exit code, out, err)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (HERE.parents[2], HERE))),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} "
        f"--xla_force_host_platform_device_count={num_devices}",
    }
    running = []
    for number in range(count):
        command = [sys.executable, str(HERE / "several_processes.py"), str(folder), event]
        command += [address, str(count), str(number)] if count > 1 else []
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(command, env=environment, **pipes))
    try:
        outputs = [process.communicate(timeout=600) for process in running]
        return [(p.returncode, *out) for p, out in zip(running, outputs, strict=True)]
    finally:
        for process in running:
            process.kill()


def outcome(path):
    """The best params, and the rows without their times."""
    with Checkpoints(path / "checkpoints", read_only=True) as checkpoints:
        params, _ = checkpoints.restore_best(tiny_run.make_params())
    rows = read_metrics(path / "metrics.jsonl")
    return params, [{name: row[name] for name in row if name != "time"} for row in rows]


def assert_equal_up_to_rounding(found, expected):
    (params, rows), (expected_params, expected_rows) = outcome(found), outcome(expected)
    for one, other in zip(*map(jax.tree.leaves, (params, expected_params)), strict=True):
        assert np.abs(one - other).max() <= 1e-6 * np.abs(other).max()
    assert len(rows) == len(expected_rows)
    for one, other in zip(rows, expected_rows, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            wanted = value if isinstance(value, str) else pytest.approx(value, rel=1e-4)
            assert one[name] == wanted, name


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """(folder, exits): two processes of two devices, then one of two, on the same folder."""
    folder = tmp_path_factory.mktemp("two")
    exits = start(folder, "SIGKILL", 2, 2)
    return folder, exits + start(folder, "none", 1, 2)


def test_two_processes_train_what_one_does(killed):
    folder, _ = killed
    assert_equal_up_to_rounding(folder / "whole", folder / "one")


def test_a_killed_process_ends_the_other_in_one_line(killed):
    _, ((code, _, errors), (killed_code, *_), _) = killed
    assert killed_code == -signal.SIGKILL
    assert code == processes.LostProcessError.exit_code, errors[-2000:]
    assert errors.count("LostProcessError: process 0 of 2 has lost the connection") == 1
    assert "Traceback" not in errors


def test_the_run_goes_on_in_one_process_on_half_the_devices(killed):
    folder, (*_, (code, _, errors)) = killed
    assert code == 0, errors[-2000:]
    assert_equal_up_to_rounding(folder / "stopped", folder / "one")


@pytest.mark.slow
def test_a_signal_to_one_stops_all_after_one_save(killed, tmp_path):
    exits = start(tmp_path, "SIGTERM", 4, 1)
    for code, out, errors in exits:
        assert code == 0, errors[-2000:]
        assert out.count("Stopped by SIGTERM after") == 1
    (params, rows), (whole_params, whole_rows) = (
        outcome(tmp_path / "stopped"),
        outcome(tmp_path / "whole"),
    )
    assert rows == whole_rows
    jax.tree.map(np.testing.assert_array_equal, params, whole_params)
    assert_equal_up_to_rounding(tmp_path / "whole", killed[0] / "one")


@pytest.mark.parametrize(
    "given",
    [
        ("localhost:1", None, None),
        ("localhost", 2, 0),
        ("localhost:1", 2, 2),
        ("auto", 2, None),
        (None, 2, 0),
    ],
)
def test_flags_that_do_not_fit_are_refused(given):
    with pytest.raises(ConfigError, match="expected HOST:PORT, the number of processes and one"):
        processes.start(*given)


def test_one_process_only_calls_and_returns():
    assert processes.largest(3, True) == (3, 1)
    assert processes.from_first(lambda: "result") == processes.everywhere(lambda: "result")
    processes.start(None, None, None)
