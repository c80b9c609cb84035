"""What numbers depend on besides a configuration: command, commit, processor, device, versions."""

import contextlib
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
_ROOT = Path(__file__).parents[2]


def machine() -> dict[str, Any]:
    """The processor, the device that JAX computes on, and the versions of what is installed."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "versions": {"python": platform.python_version()} | versions(_PACKAGES),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def command(arguments: Sequence[str] | None = None) -> str:
    """The command line of this process, or that of its program with other `arguments`."""
    words = sys.argv[1:] if arguments is None else arguments
    module = sys.modules["__main__"].__spec__
    name = None if module is None else module.name.removesuffix(".__main__")
    text = shlex.join(["python", *(["-m", name] if name else [sys.argv[0]]), *words])
    return os.fsencode(text).decode(errors="replace")  # an argument may not be UTF-8


def commit(root: Path = _ROOT) -> str | None:
    """The commit of the checkout in `root`; None without a checkout or without git.

    "-dirty" follows where files have changed since, and "-unknown" where this was not found out in
    time. New files that git does not know do not count as a change.
    """
    if not (root / ".git").exists():
        return None
    # A checkout of another user is one, too. No locks: another git may be at work.
    git = ["git", "--no-optional-locks", "-c", f"safe.directory={root}", "-C", str(root)]
    head = _output([*git, "rev-parse", "HEAD"])
    if not head:
        return None
    changed = _output([*git, "status", "--porcelain", "--untracked-files=no"])
    return head + ("-unknown" if changed is None else "-dirty" if changed else "")


def _output(command_line: Sequence[str]) -> str | None:
    try:
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 10}
        return subprocess.run(command_line, check=True, **options).stdout.strip()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:  # not Linux
        models = []
    return models[0] if models else platform.processor() or platform.machine()
