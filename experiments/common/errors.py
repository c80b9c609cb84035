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
    """The loss or the gradient stopped being finite (or exceeded the limit set for the loss).

    Attributes:
        update: number of updates applied before the bad segment.
        time_step: time steps trained before the bad segment.
        length: time steps of the bad segment.
        loss: its mean loss.
        gradient_norm: the global norm of its gradient, before clipping.
        max_compensation: its largest factor 1/(1-c).
        max_weight: the product of its factors.
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        update: int,
        time_step: int,
        length: int,
        loss: float,
        gradient_norm: float,
        max_compensation: float,
        max_weight: float,
    ) -> None:
        super().__init__(message)
        self.update = update
        self.time_step = time_step
        self.length = length
        self.loss = loss
        self.gradient_norm = gradient_norm
        self.max_compensation = max_compensation
        self.max_weight = max_weight


class TrainingInterruptedError(ExperimentError):
    """Ctrl-C or SIGTERM: the run stopped at a chunk boundary, and its checkpoint is on disk."""

    exit_code = 130
