"""One session of a run: from its start, or from a checkpoint, to its end or to an interruption."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

import artbp
from experiments.common import chunks
from experiments.common.checkpoints import Checkpoints
from experiments.common.errors import (
    ExperimentError,
    TrainingDivergedError,
    TrainingInterruptedError,
)
from experiments.common.interrupts import Interrupts
from experiments.common.metrics import MetricsWriter
from experiments.common.options import LoopOptions
from experiments.common.progress import Progress, ProgressBar, losses, summarise

# measure(params, estimator_state, stream, updates) -> numbers
Measure = Callable[[Any, Any, artbp.Stream, int], Mapping[str, Any]]


class Session:
    """One session of a run: the state on the device, the counters on the host, the outputs."""

    def __init__(
        self,
        run_chunk: chunks.RunChunk,
        stream: artbp.Stream,
        state: chunks.TrainState,
        progress: Progress,
        options: LoopOptions,
        evaluate: Callable[[Any], Mapping[str, float]] | None,
        measure: Measure | None,
        checkpoints: Checkpoints,
        metrics: MetricsWriter,
        bar: ProgressBar,
    ) -> None:
        self.run_chunk = run_chunk
        self.stream = stream
        self.state = state
        self.progress = progress
        self.options = options
        self.evaluate = evaluate
        self.measure = measure
        self.checkpoints = checkpoints
        self.metrics = metrics
        self.bar = bar
        self.clock = time.perf_counter()
        self.saved_milestones = progress.milestones
        self.saved_seconds = progress.elapsed_seconds

    def to_the_end(self, interrupts: Interrupts) -> None:
        """Keeps one chunk ahead of the host, and lets the device run dry before any pause."""
        in_flight = None
        while True:
            pause = (
                interrupts.signal_name is not None
                or self.is_finished
                or self.epoch_is_over
                or self.save_is_due
                # Nobody knows yet how many updates the chunk in flight makes.
                or self.measurement_is_due(self.options.segments_per_chunk if in_flight else 0)
            )
            ahead = None if pause else self.dispatch()
            if in_flight is not None:
                self.record(in_flight)
            in_flight = ahead
            if not pause:
                continue
            # Nothing is in flight: self.state is the state that self.progress counts up to.
            interrupted = interrupts.signal_name is not None
            # An interrupted run leaves measurement and evaluation, which may take long, to the
            # resumed one.
            save = interrupted or self.save_is_due or self.epoch_is_over
            if not interrupted:
                if self.measurement_is_due():
                    self.write_measurement()
                if self.epoch_is_over:
                    self.finish_epoch()
            if save and self.progress.milestones > self.saved_milestones:
                self.save()
            if self.is_finished:
                return
            if interrupted:
                raise TrainingInterruptedError(
                    f"Stopped by {interrupts.signal_name} after {self.progress.updates} updates, "
                    "all of them saved: go on with the same command and --resume."
                )

    @property
    def is_finished(self) -> bool:
        return self.progress.evaluated_epochs == self.options.num_epochs

    @property
    def epoch_is_over(self) -> bool:
        return self.progress.epochs > self.progress.evaluated_epochs

    @property
    def save_is_due(self) -> bool:
        age = self.progress.elapsed_seconds - self.saved_seconds
        is_new = self.progress.milestones > self.saved_milestones
        return is_new and age >= self.options.checkpoint_every_seconds

    def measurement_is_due(self, more_updates: int = 0) -> bool:
        """Whether it is, or will be so many updates from now."""
        new_updates = self.progress.updates + more_updates - self.progress.measured_updates
        return self.measure is not None and new_updates >= self.options.measure_every

    def dispatch(self) -> chunks.Chunk:
        allowed = self.progress.evaluated_epochs + 1
        self.state, chunk = self.run_chunk(self.state, self.stream, allowed)
        return chunk

    def record(self, chunk: chunks.Chunk) -> None:
        """Waits for a chunk, counts it and writes its row."""
        records = chunks.fetch(chunk)
        if records is None:
            return
        if not records.healthy[-1]:
            raise _diverged(records, self.progress, self.options)
        epoch = self.progress.epochs + 1
        self.progress.count(records)
        row = {
            "kind": "train",
            "epoch": epoch,
            "chunk": self.progress.chunks,
            "update": self.progress.updates,
            "time_step": self.progress.time_steps,
            **summarise(records),
        }
        row["time"] = self.time_fields(int(np.sum(records.length, dtype=np.int64)))
        self.metrics.write(row)
        self.bar.advance(row)

    def write_measurement(self) -> None:
        """Measures on the state that the counters stand at, and writes the row."""
        assert self.measure is not None
        progress, state = self.progress, self.state
        values = self.measure(state.params, state.estimator_state, self.stream, progress.updates)
        self.metrics.write(
            {
                "kind": "measurement",
                "epoch": progress.epochs + (not self.epoch_is_over),  # of the last update
                "update": progress.updates,
                "time_step": progress.time_steps,
                **{name: float(value) for name, value in jax.device_get(dict(values)).items()},
                "time": self.time_fields(),
            }
        )
        progress.measurements += 1
        progress.measured_updates = progress.updates

    def finish_epoch(self) -> None:
        """Evaluates, writes the row, and keeps the parameters if they are the best."""
        progress = self.progress
        values = dict(self.evaluate(self.state.params)) if self.evaluate is not None else {}
        row: dict[str, Any] = {
            "kind": "evaluation",
            "epoch": progress.epochs,
            "update": progress.updates,
            "time_step": progress.time_steps,
            **losses(progress.epoch_loss_sum, progress.epoch_num_losses, prefix="train_"),
            **{name: float(value) for name, value in values.items()},
        }
        if self.options.best_metric is not None:
            row["is_best"] = self.keep_if_best(row)
        row["time"] = self.time_fields()
        self.metrics.write(row)
        progress.evaluated_epochs = progress.epochs
        progress.epoch_loss_sum, progress.epoch_num_losses = 0.0, 0

    def keep_if_best(self, row: dict[str, Any]) -> bool:
        name = self.options.best_metric
        if name not in row:
            raise ExperimentError(
                f"best_metric is {name!r}, but evaluate returned none of that name: "
                f"the row has {', '.join(row)}."
            )
        value, best = row[name], self.progress.best_value
        if not math.isfinite(value):
            raise TrainingDivergedError(
                f"Training diverged: after update {self.progress.updates}, time step "
                f"{self.progress.time_steps}, the evaluation gave {name} = {value}, which is not "
                "finite. Checkpoints saved before are as they were. Try a lower learning rate.",
                update=self.progress.updates,
                time_step=self.progress.time_steps,
            )
        if best is not None and value >= best:
            return False
        self.progress.best_value, self.progress.best_epoch = value, row["epoch"]
        self.checkpoints.save_best(self.state.params, {**row, "is_best": True})
        return True

    def save(self) -> None:
        # The rows first: a checkpoint must not point beyond the end of the file.
        self.progress.metrics_cursor = self.metrics.cursor()
        estimator_state = self.state.estimator_state._replace(scratch=())
        self.checkpoints.save_latest(
            self.progress.milestones,
            self.state._replace(estimator_state=estimator_state),
            dataclasses.asdict(self.progress),
        )
        self.saved_milestones = self.progress.milestones
        self.saved_seconds = self.progress.elapsed_seconds

    def time_fields(self, new_steps: int | None = None) -> dict[str, float]:
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        self.progress.elapsed_seconds += seconds
        fields = {"elapsed_seconds": self.progress.elapsed_seconds}
        return fields if new_steps is None else fields | {"steps_per_second": new_steps / seconds}


def _diverged(
    records: chunks.SegmentRecord, progress: Progress, options: LoopOptions
) -> TrainingDivergedError:
    last = jax.tree.map(lambda rows: rows[-1].item(), records)
    update = progress.updates + len(records.length) - 1
    time_step = progress.time_steps + int(np.sum(records.length[:-1], dtype=np.int64))
    loss = last.loss_sum / max(last.num_losses, 1)
    if not math.isfinite(loss):
        what = f"the mean loss {loss}"
    elif not math.isfinite(last.gradient_norm):
        what = f"a gradient of norm {last.gradient_norm} (mean loss {loss:.6g})"
    elif loss > options.max_loss:
        what = f"the mean loss {loss:.6g}, above the limit {options.max_loss:g}"
    else:
        what = f"parameters that are not finite (gradient norm {last.gradient_norm:.6g})"
    alpha = ""
    if last.max_weight > 1:  # random truncation
        alpha = "a larger alpha (fewer long segments, smaller weights); "
    return TrainingDivergedError(
        f"Training diverged at update {update}, time step {time_step}: a segment of {last.length} "
        f"time steps gave {what}. Its largest compensation was {last.max_compensation:.6g}, its "
        f"largest weight {last.max_weight:.6g}. The update was not applied; checkpoints saved "
        "before are as they were.\n"
        f"What to try: a lower learning rate; {alpha}a shorter mean length; clipping, which keeps "
        "the run alive but biases a random gradient, most of all on long segments.",
        update=update,
        time_step=time_step,
    )
