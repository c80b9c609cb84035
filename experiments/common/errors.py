"""Errors that a user of an experiment may meet.

Each message says what was given, what was expected and what to do; `cli.run` prints it without a
traceback. Anything else that an experiment raises is a bug and keeps its traceback.
"""


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
    """A loss, gradient, parameter or evaluation is not finite, or a loss exceeds its limit.

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
