"""Errors that a user of an experiment may meet, and how a program ends with them.

Each message says what was given, what was expected and what to do. `run_guarded` prints it without
a traceback. Any other exception of an experiment is a bug and shows its traceback.
"""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging


class ExperimentError(Exception):
    """Base class: the user can mend the cause (a flag, a file, a hyperparameter)."""

    exit_code = 2


class ConfigError(ExperimentError):
    """A configuration file is missing, or has an unknown field or a value of the wrong type."""


class WorkdirError(ExperimentError):
    """The folder given for a run holds something else."""


class CheckpointError(ExperimentError):
    """A checkpoint is missing, or was written by a run of another shape."""


class TrainingDivergedError(ExperimentError):
    """A loss, gradient, param or evaluation is not finite, or a loss exceeds its limit.

    Attributes:
        update: number of good updates before.
        time_step: time steps trained before.
    """

    exit_code = 3

    def __init__(self, message: str, *, update: int, time_step: int) -> None:
        super().__init__(message)
        self.update = update
        self.time_step = time_step


class TrainingInterruptedError(ExperimentError):
    """Ctrl-C or SIGTERM: the run stopped at a chunk boundary, and its checkpoint is on disk."""

    exit_code = 130


def run_guarded(main: Callable[[], None]) -> None:
    """Parses the flags, calls `main()`, and exits.

    An `ExperimentError` is printed without a traceback and sets the exit code. JAX and orbax print
    errors only, unless --verbosity is given.
    """

    def guarded_main(arguments: Sequence[str]) -> int:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.ERROR)
        try:
            if len(arguments) > 1:
                raise ExperimentError(
                    f"Arguments without a flag were given: {' '.join(arguments[1:])}. "
                    "Every argument here starts with --; see --help."
                )
            main()
        except ExperimentError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return error.exit_code
        return 0

    app.run(guarded_main)
