"""How a run is driven: the options of the training loop."""

import dataclasses
import math
from typing import Literal

from experiments.common.errors import ExperimentError


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """How to run, as opposed to what to train.

    Attributes:
        num_epochs: passes of the stream.
        segments_per_chunk: segments (and updates) per call and per row of metrics. Part of the
            run's identity: another number gives the same parameters but other rows.
        best_metric: name of the value of `evaluate` that chooses the best parameters, the ones
            where it is smallest; None keeps no best parameters.
        max_loss: a segment whose mean loss exceeds it counts as diverged (never, by default; a
            loss that is not finite always does).
        measure_every: with a `measure`, one measurement at the end of the first chunk that is at
            least so many updates after the last one (or after the start). No chunk is dispatched
            ahead of one, so that measuring as often as chunks end keeps the device waiting for the
            host in between. Part of the run's
            identity: another number gives the same parameters but other rows.
        checkpoint_every_seconds: a checkpoint when the last one is older than that. There is one
            after every epoch and on interruption in any case.
        driver: "compiled" runs a chunk as one program, for estimators that can be traced (policy
            None or "dynamic"). "host" runs it as a Python loop, as the policies "exact" and
            "pow2" need.
        tensorboard: whether to write TensorBoard events too.
        progress_bar: None shows it on a terminal only.
    """

    num_epochs: int
    segments_per_chunk: int = 100
    best_metric: str | None = None
    max_loss: float = math.inf
    measure_every: int = 100
    checkpoint_every_seconds: float = 300.0
    driver: Literal["compiled", "host"] = "compiled"
    tensorboard: bool = False
    progress_bar: bool | None = None

    def __post_init__(self) -> None:
        for name in ("num_epochs", "segments_per_chunk", "measure_every"):
            if getattr(self, name) < 1:
                raise ExperimentError(f"{name} is {getattr(self, name)}: expected 1 or more.")
        if self.driver not in ("compiled", "host"):
            raise ExperimentError(f"driver is {self.driver!r}: expected 'compiled' or 'host'.")
