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
        best_metric: name of the value of `evaluate` that chooses the best parameters; None keeps
            no best parameters.
        best_mode: whether a small or a large value is good.
        max_loss: a segment whose mean loss exceeds it counts as diverged (never, by default; a
            loss that is not finite always does).
        checkpoint_every_chunks: a checkpoint after that many chunks; None for none by count.
            There is one after every epoch and on interruption in any case.
        checkpoint_every_seconds: a checkpoint when the last one is older than that.
        driver: "compiled" runs a chunk as one program, for estimators that can be traced (policy
            None or "dynamic"). "host" runs it as a Python loop, as the policies "exact" and
            "pow2" need.
        tensorboard: whether to write TensorBoard events too.
        progress_bar: None shows it on a terminal only.
    """

    num_epochs: int
    segments_per_chunk: int = 100
    best_metric: str | None = None
    best_mode: Literal["min", "max"] = "min"
    max_loss: float = math.inf
    checkpoint_every_chunks: int | None = None
    checkpoint_every_seconds: float = 300.0
    driver: Literal["compiled", "host"] = "compiled"
    tensorboard: bool = False
    progress_bar: bool | None = None

    def __post_init__(self) -> None:
        for name in ("num_epochs", "segments_per_chunk", "checkpoint_every_chunks"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ExperimentError(f"{name} is {value}: expected 1 or more.")
        for name, known in (("driver", ("compiled", "host")), ("best_mode", ("min", "max"))):
            if getattr(self, name) not in known:
                given = getattr(self, name)
                raise ExperimentError(f"{name} is {given!r}: expected one of {known}.")
