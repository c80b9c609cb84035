"""The options of a training run."""

import dataclasses
import math
from typing import Literal, get_args

from experiments.common import divergence
from experiments.common.errors import ExperimentError


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """How to run, as opposed to what to train.

    `segments_per_chunk` and `measure_every` decide which rows of metrics are written. They do not
    change the params.
    """

    num_epochs: int  # passes of the stream
    segments_per_chunk: int = 100  # and updates, per call and per row of metrics
    best_metric: str | None = None  # the value of `evaluate` that is smallest at the best params
    max_loss: float = math.inf  # a segment whose mean loss exceeds it counts as diverged
    on_divergence: divergence.Policy = "stop"  # what a bad segment does, see `divergence`
    measure_every: int = 100  # least number of updates between two measurements
    checkpoint_every_seconds: float = 300.0  # besides those after epochs and on interruption
    # "compiled" runs a chunk as one program, for estimators that can be traced (policy None or
    # "dynamic"). "host" runs it as a Python loop, for "exact" and "pow2".
    driver: Literal["compiled", "host"] = "compiled"
    # The rows of the batch are split over so many devices, of all processes together. A run may be
    # resumed on another number: the result is then the same up to rounding.
    num_devices: int = 1
    tensorboard: bool = False  # whether to write TensorBoard events too
    progress_bar: bool | None = None  # None shows it on a terminal only

    def __post_init__(self) -> None:
        for name in ("num_epochs", "segments_per_chunk", "measure_every"):
            if getattr(self, name) < 1:
                raise ExperimentError(f"{name} is {getattr(self, name)}: expected 1 or more.")
        if self.driver not in ("compiled", "host"):
            raise ExperimentError(f"driver is {self.driver!r}: expected 'compiled' or 'host'.")
        if self.on_divergence not in get_args(divergence.Policy):
            known = ", ".join(get_args(divergence.Policy))
            raise ExperimentError(f"on_divergence is {self.on_divergence!r}: expected {known}.")
