"""What numbers depend on besides a configuration: command, commit, processor, device, versions."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

_PACKAGES = ("artbp", "jax", "jaxlib", "numpy", "flax", "optax", "torch", "dm-haiku", "equinox")


def machine() -> dict[str, Any]:
    """The processor, the device that JAX computes on, and the versions of what is installed."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "versions": {"python": platform.python_version()} | _versions(),
    }


def command(arguments: Sequence[str] | None = None) -> str:
    """The command line of this process, or that of its program with other `arguments`."""
    words = sys.argv[1:] if arguments is None else arguments
    module = sys.modules["__main__"].__spec__
    program = ["python", sys.argv[0]] if module is None else ["python", "-m", module.name]
    return shlex.join([*program, *words]).replace(".__main__ ", " ").removesuffix(".__main__")


def commit() -> str | None:
    """The commit of this checkout, with "-dirty" after it if files have changed; None without git.

    New files that git does not know do not count as a change.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 10}
    try:
        # Without tags: a name such as v1.0-3-g… says no more.
        found = subprocess.run([*describe, "--exclude=*"], **options, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:  # not Linux
        models = []
    return models[0] if models else platform.processor() or platform.machine()
