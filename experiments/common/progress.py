"""The host's counters of a run, saved with every checkpoint, and the bar that shows them."""

import contextlib
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np
from tqdm import tqdm

from experiments.common.chunks import SegmentRecord


@dataclasses.dataclass
class Progress:
    """Plain numbers, the same after a resume as without an interruption, but for the seconds.

    Attributes:
        epochs: passes of the stream that are complete.
        evaluated_epochs: those of them that were evaluated.
        chunks, updates, time_steps: trained so far, over all epochs.
        measurements: taken so far.
        measured_updates: the updates that had been made when the last of them was taken.
        epoch_loss_sum, epoch_num_losses: of the pass that is going on.
        best_value, best_epoch: of the metric that chooses the best parameters; None before.
        metrics_cursor: bytes of the metrics file that belong to the counters above.
        elapsed_seconds: spent in the loop, over all sessions.
    """

    epochs: int = 0
    evaluated_epochs: int = 0
    chunks: int = 0
    updates: int = 0
    time_steps: int = 0
    measurements: int = 0
    measured_updates: int = 0
    epoch_loss_sum: float = 0.0
    epoch_num_losses: int = 0
    best_value: float | None = None
    best_epoch: int | None = None
    metrics_cursor: int = 0
    elapsed_seconds: float = 0.0

    @property
    def milestones(self) -> int:
        """Grows with every row of metrics: names a checkpoint."""
        return self.chunks + self.measurements + self.evaluated_epochs

    def count(self, records: SegmentRecord) -> None:
        """Adds the segments of a chunk, all of them good."""
        self.chunks += 1
        self.updates += len(records.length)
        self.time_steps += int(np.sum(records.length, dtype=np.int64))
        self.epoch_loss_sum += float(np.sum(records.loss_sum, dtype=np.float64))
        self.epoch_num_losses += int(np.sum(records.num_losses, dtype=np.int64))
        self.epochs += int(records.end_of_stream[-1])


def losses(loss_sum: float, num_losses: int, prefix: str = "") -> dict[str, float]:
    """Mean loss in nats and in bits."""
    loss = loss_sum / max(num_losses, 1)
    return {f"{prefix}loss": loss, f"{prefix}bits": loss / math.log(2)}


def summarise(records: SegmentRecord) -> dict[str, Any]:
    """The values of a chunk for one row of metrics."""
    loss_sum = float(np.sum(records.loss_sum, dtype=np.float64))
    return {
        **losses(loss_sum, int(np.sum(records.num_losses, dtype=np.int64))),
        "segments": len(records.length),
        "mean_length": float(np.mean(records.length, dtype=np.float64)),
        "max_length": int(np.max(records.length)),
        "max_compensation": float(np.max(records.max_compensation)),
        "max_weight": float(np.max(records.max_weight)),
        "max_gradient_norm": float(np.max(records.gradient_norm)),
    }


class ProgressBar:
    """Loss, bits, steps per second and time left; a context manager.

    Args:
        total_steps: time steps of the whole run.
        done_steps: those trained by earlier sessions.
        show: None shows it where stderr is a terminal.
    """

    def __init__(self, *, total_steps: int, done_steps: int, show: bool | None) -> None:
        self._bar = tqdm(
            total=total_steps,
            initial=done_steps,
            unit="step",
            unit_scale=True,
            dynamic_ncols=True,
            file=sys.stderr,
            disable=None if show is None else not show,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def advance(self, row: dict[str, Any]) -> None:
        """After a "train" row."""
        self._bar.set_postfix(
            epoch=row["epoch"], loss=f"{row['loss']:.4f}", bits=f"{row['bits']:.4f}", refresh=False
        )
        self._bar.update(row["time_step"] - self._bar.n)


@contextlib.contextmanager
def window_bar(label: str, show: bool | None) -> Iterator[Callable[[int, int], None]]:
    """A bar over windows, for `on_window` of `artbp.diagnostics.gradient_report`.

    show: None shows it where stderr is a terminal.
    """
    hide = None if show is None else not show
    with tqdm(desc=label, unit="window", leave=False, file=sys.stderr, disable=hide) as bar:

        def on_window(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield on_window
