"""Experiments built on artbp: one module each, run as `python -m experiments.NAME`."""

import importlib.metadata
import importlib.util
import os
import sys
from types import TracebackType

from experiments.common.interrupts import exit_on_ctrl_c


def show_error(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Prints an uncaught error; if a package is missing, also how to install it."""
    if isinstance(error, ModuleNotFoundError):
        error.add_note(
            "The experiments need more packages than the library: pip install -e '.[experiments]' "
            "in a clone, or start the command with ./run, which installs them into .venv."
        )
    sys.__excepthook__(kind, error, traceback)


def runs_on_cpu_only() -> bool:
    """Whether JAX has no plugin for a GPU or a TPU."""
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and importlib.util.find_spec("libtpu") is None


if sys.argv[0] == "-m":  # while Python looks for the module of `python -m experiments.NAME`
    exit_on_ctrl_c()
    sys.excepthook = show_error
    if runs_on_cpu_only():
        # On some processors, XLA calls each program that it loads from the compilation cache an
        # error, and runs it (jax issue 38445). What it cannot run is an exception all the same.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
