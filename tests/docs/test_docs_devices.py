"""The program of the page on devices, in one process and in two and four over loopback."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pages
import pytest

ROOT = Path(__file__).parents[2]
# Arrays of which a process holds some rows only: their values cannot be checked.
ROWS_OF_OTHERS = """
lengths = split_rows(np.full(last - first, 30), axis=0)
assert artbp.Stream(xs, lengths=lengths).mask.shape == (40, num_rows)
all_but_one = np.arange(40)[:, None] * np.arange(num_rows) > 0
assert artbp.Stream(xs, mask=all_but_one).xs.shape == xs.shape
"""
PRINTED = re.compile(r"(\d+) devices, loss (\d+\.\d+)")


def _start(program, *arguments):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, str(program), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **pipes)


def _losses(processes):
    """What the processes print, when all of them have ended well."""
    try:
        outputs = [process.communicate(timeout=200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-2000:]
    return [match.groups() for out, _ in outputs if (match := PRINTED.search(out))]


@pytest.mark.parametrize(
    "counts", [(2,), pytest.param((2, 4), marks=pytest.mark.slow)], ids=["two", "two_and_four"]
)
def test_the_program_in_one_and_in_several_processes(counts, tmp_path):
    program = tmp_path / "train.py"
    program.write_text(pages.blocks((ROOT / "docs" / "devices.md").read_text()) + ROWS_OF_OTHERS)
    ((_, expected),) = _losses([_start(program)])
    for count in counts:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        (found,) = _losses([_start(program, address, count, n) for n in range(count)])
        assert found[0] == str(count)
        assert abs(float(found[1]) - float(expected)) <= 1e-4
