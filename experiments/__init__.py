"""Experiments built on artbp: one module each, run as `python -m experiments.NAME`."""

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


if sys.argv[0] == "-m":  # while Python looks for the module of `python -m experiments.NAME`
    exit_on_ctrl_c()
    sys.excepthook = show_error
