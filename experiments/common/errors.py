"""Errors that a user of an experiment may meet, and how a program ends with them.

Each message says what was given, what was expected and what to do. `run_guarded` prints it without
a traceback. Any other exception of an experiment is a bug and shows its traceback.
"""

import errno
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from experiments.common.interrupts import raise_on_ctrl_c


class ExperimentError(Exception):
    """Base class: the user can mend the cause (a flag, a file, a hyperparameter)."""

    exit_code = 2


class ConfigError(ExperimentError):
    """A configuration file is missing, or has an unknown field or a value of the wrong type."""


class WorkdirError(ExperimentError):
    """The folder given for a run holds something else."""


class CheckpointError(ExperimentError):
    """A checkpoint is missing, or was written by a run of another shape."""


# The end of messages about a run that cannot go on.
REMEDY = ". Restore the workdir from a copy, or start afresh in another --workdir."


class DamagedCheckpointError(CheckpointError):
    """A checkpoint is not as it was saved, or does not belong to the rows and the run beside it.

    The message is a clause without a full stop: the caller names the checkpoint.
    """


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


# What the system may refuse, and what the user can do.
_REMEDIES = {
    errno.ENOSPC: "Free space on this disk",
    errno.EDQUOT: "Free space: the quota is used up",
    errno.EFBIG: "Allow larger files (ulimit -f)",
    errno.EROFS: "Give a folder on a disk that can be written",
    errno.EACCES: "Give yourself the permission, or name another folder",
    errno.EPERM: "Give yourself the permission, or name another folder",
    errno.EIO: "Check the disk",
    errno.ENAMETOOLONG: "Give a shorter name",
    errno.EMFILE: "Allow more open files (ulimit -n)",
}


def warn(message: str) -> None:
    """Prints a warning, one line, to the standard error."""
    print(f"Warning: {message}", file=sys.stderr, flush=True)


def one_line(error: BaseException) -> str:
    """The message of an error of another library, in one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text.partition(" [tensorstore")[0].partition(" [source")[0]
    # The cause is at the end, after what was tried.
    return text if len(text) <= 300 else f"{text[:100]} ... {text[-195:]}"


def run_guarded(main: Callable[[], None]) -> None:
    """Parses the flags, calls `main()`, and exits.

    An `ExperimentError`, an error of the disk and Ctrl-C are printed in one line, without a
    traceback, and set the exit code. JAX and orbax print nothing about errors that they raise,
    unless --verbosity is given.
    """

    def guarded_main(arguments: Sequence[str]) -> int:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.FATAL)
        try:
            raise_on_ctrl_c()
            if len(arguments) > 1:
                raise ExperimentError(
                    f"Arguments without a flag were given: {' '.join(arguments[1:])}. "
                    "Every argument here starts with --; see --help."
                )
            main()
        except ExperimentError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return error.exit_code
        except OSError as error:
            if error.errno not in _REMEDIES:
                raise
            print(
                f"{type(error).__name__}: {error}. {_REMEDIES[error.errno]}; what was complete is "
                "still there, and the same command with --resume goes on.",
                file=sys.stderr,
            )
            return ExperimentError.exit_code
        except KeyboardInterrupt:
            print(
                "Stopped at once by Ctrl-C. What was complete is still there: the same command "
                "with --resume goes on from the last checkpoint, or begins if there is none.",
                file=sys.stderr,
            )
            return TrainingInterruptedError.exit_code
        return 0

    app.run(guarded_main)
