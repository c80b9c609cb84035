"""One process's part of a training run: dispatches chunks, writes rows and saves checkpoints.

A chunk is one call of a compiled program. It ends after segments_per_chunk segments, at the end of
the stream or at a bad segment: these places depend on the trajectory only. The next chunk is
dispatched before the metrics of the last are fetched, so that the device does not wait for the
host. A chunk dispatched beyond the end of an epoch runs no segment, because the host has not yet
allowed the next epoch. Checkpoints are taken between chunks and do not change the trajectory.

In a run of several processes, each executes this loop for the rows of its devices. Process 0 writes
the rows of metrics and the checkpoints. Before each chunk the processes agree on whether one of
them was asked to stop, or wants to save a checkpoint.
"""

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

import artbp
from experiments.common import chunks, devices, divergence, processes
from experiments.common.array_trees import on_the_host
from experiments.common.checkpoints import Checkpoints
from experiments.common.errors import (
    REMEDY,
    CheckpointError,
    DamagedCheckpointError,
    ExperimentError,
    TrainingDivergedError,
    TrainingInterruptedError,
    warn,
)
from experiments.common.interrupts import Interrupts, catch_interrupts
from experiments.common.loop_options import LoopOptions
from experiments.common.metrics import (
    MetricsWriter,
    Progress,
    check_rows,
    losses,
    progress_bar,
    without_nonfinite,
)
from experiments.common.workdir import Workdir

# measure(params, estimator_state, stream, updates) -> numbers
Measure = Callable[[Any, Any, artbp.Stream, int], Mapping[str, Any]]


class TrainResult(NamedTuple):
    """A finished run: the params after the last update, and the host's counters."""

    params: Any
    progress: Progress


def with_scratch(state: chunks.TrainState, scratch: Any) -> chunks.TrainState:
    """The state with another scratch: a checkpoint holds none."""
    return state._replace(estimator_state=state.estimator_state._replace(scratch=scratch))


@dataclasses.dataclass
class Session:
    """One process's part of a run: from its start, or a checkpoint, to its end or an interruption.

    The state is on the device; the counters, `progress`, and the outputs are on the host.
    """

    options: LoopOptions
    workdir: Workdir
    run_chunk: chunks.RunChunk
    stream: Any
    data_hash: str
    evaluate: Callable[[Any], Mapping[str, float]] | None
    measure: Measure | None
    state: chunks.TrainState

    def run(self) -> TrainResult:
        """Trains to the end, from the last checkpoint again where the run rolls back."""
        reason = ""
        while True:
            try:
                return self.from_checkpoint(reason)
            except TrainingDivergedError as error:
                rolls_back = self.options.on_divergence == "roll_back"
                if not rolls_back or self.progress.roll_backs >= divergence.MOST_ROLL_BACKS:
                    raise
                reason = str(error)
                warn(f"{reason} The run goes on from its last checkpoint, with another key.")

    def from_checkpoint(self, roll_back_reason: str) -> TrainResult:
        """Restores the latest checkpoint, if there is one, opens the outputs and trains."""
        self.progress, options, workdir = Progress(), self.options, self.workdir
        with contextlib.ExitStack() as stack:

            def open_checkpoints() -> None:
                identity = {"config": workdir.config_hash(), "data": self.data_hash}
                checkpoints = Checkpoints(workdir.checkpoints_path, identity=identity)
                self.checkpoints = stack.enter_context(checkpoints)

            def open_metrics() -> None:
                tensorboard = workdir.tensorboard_path if options.tensorboard else None
                place = workdir.metrics_path, progress.metrics_cursor, tensorboard, progress.updates
                self.metrics = stack.enter_context(MetricsWriter(*place))

            processes.from_first(open_checkpoints)
            is_new = not self.restore()
            progress = self.progress
            self.clock, self.saved_seconds = time.perf_counter(), progress.elapsed_seconds
            self.saved_milestones = progress.milestones
            processes.from_first(open_metrics)
            num_steps = options.num_epochs * self.stream.num_steps
            show = options.progress_bar if processes.is_first() else False
            bar = progress_bar(num_steps, progress.time_steps, show)
            self.bar = stack.enter_context(bar)
            interrupts = stack.enter_context(catch_interrupts())
            if roll_back_reason:
                self.write_roll_back(roll_back_reason)
            if is_new or roll_back_reason:
                self.save()
            self.to_the_end(interrupts)
        return TrainResult(self.state.params, progress)

    def restore(self) -> bool:
        """Whether there was a checkpoint. Process 0 reads it, and all take its state."""
        like = with_scratch(self.state, ())

        def read() -> tuple[list[Any], dict[str, Any]] | None:
            restored = self.checkpoints.restore_latest(like, self.check)
            if restored is None:
                _refuse_rows(self.workdir)
                return None
            return [on_the_host(leaf) for leaf in jax.tree.leaves(restored[0])], restored[1]

        restored = processes.from_first(read)
        if restored is None:
            return False
        leaves, structure = jax.tree.flatten(like)
        placed = [devices.place(*pair) for pair in zip(restored[0], leaves, strict=True)]
        state = jax.tree.unflatten(structure, placed)
        self.state = with_scratch(state, self.state.estimator_state.scratch)
        self.progress = Progress(**restored[1])
        return True

    def check(self, state: chunks.TrainState, record: dict[str, Any]) -> None:
        """Raises DamagedCheckpointError unless counters, arrays, rows and best params agree."""
        progress = Progress.from_record(record)
        check_rows(self.workdir.metrics_path, progress)
        epoch, position = int(state.epoch), int(state.estimator_state.position)
        time_steps = epoch * int(self.stream.num_new) + position
        if (epoch, time_steps) != (progress.epochs, progress.time_steps):
            raise DamagedCheckpointError(
                f"it counts {progress.epochs} epochs and {progress.time_steps} time steps, and its "
                f"arrays stand after {epoch} and {time_steps}"
            )
        if progress.best_epoch is None:
            return
        try:
            best = self.checkpoints.best_record()
        except CheckpointError as error:
            reason = str(error).removesuffix(REMEDY)
            raise DamagedCheckpointError(
                f"the best params are damaged or gone: {reason}"
            ) from error
        # A run that is killed after it saves its best params comes to that evaluation again.
        if best["epoch"] < progress.best_epoch:
            raise DamagedCheckpointError(
                f"the best params are those of epoch {best['epoch']}, not {progress.best_epoch}"
            )

    def to_the_end(self, interrupts: Interrupts) -> None:
        """Dispatches one chunk ahead of the host, and none before a pause."""
        in_flight = None
        while self.progress.evaluated_epochs < self.options.num_epochs:
            signal_name, save_is_due = self.asked(interrupts)
            pause = (
                signal_name is not None
                or self.epoch_is_over
                or save_is_due
                # The number of updates in the chunk in flight is not known yet: assume the most.
                or self.measurement_is_due(self.options.segments_per_chunk if in_flight else 0)
            )
            ahead = None
            if not pause:
                allowed = self.progress.evaluated_epochs + 1
                self.state, ahead = self.run_chunk(self.state, self.stream, allowed)
            if in_flight is not None:
                self.record(in_flight)
            in_flight = ahead
            if not pause:
                continue
            # Nothing is in flight: self.state is the state that self.progress counts up to.
            signal_name, save_is_due = self.asked(interrupts)
            save = signal_name is not None or save_is_due or self.epoch_is_over
            # Measurement and evaluation may take long: an interrupted run leaves them to the
            # resumed one.
            if signal_name is None:
                if self.measurement_is_due():
                    self.write_measurement()
                if self.epoch_is_over:
                    self.finish_epoch()
            if save and self.progress.milestones > self.saved_milestones:
                self.save()
            if signal_name is not None:
                raise TrainingInterruptedError(
                    f"Stopped by {signal_name} after {self.progress.updates} updates, "
                    "all of them saved: go on with the same command and --resume."
                )

    def asked(self, interrupts: Interrupts) -> tuple[str | None, bool]:
        """The signal that has come to one of the processes, and whether one of them is to save."""
        name = interrupts.signal_name
        if jax.process_count() > 1:
            # One program with sums over devices at a time: on CPUs they would share the threads.
            jax.block_until_ready(self.state)
        number, save = processes.largest(signal.Signals[name] if name else 0, self.save_is_due)
        return signal.Signals(number).name if number else None, bool(save)

    @property
    def epoch_is_over(self) -> bool:
        return self.progress.epochs > self.progress.evaluated_epochs

    @property
    def save_is_due(self) -> bool:
        age = self.progress.elapsed_seconds - self.saved_seconds
        is_new = self.progress.milestones > self.saved_milestones
        return is_new and age >= self.options.checkpoint_every_seconds

    def measurement_is_due(self, more_updates: int = 0) -> bool:
        """Whether a measurement is due, now or after so many more updates."""
        new_updates = self.progress.updates + more_updates - self.progress.measured_updates
        return self.measure is not None and new_updates >= self.options.measure_every

    def record(self, chunk: chunks.Chunk) -> None:
        """Waits for a chunk, counts it and writes its row."""
        records = chunks.fetch(chunk)
        if records is None:
            if not self.epoch_is_over:
                raise CheckpointError(
                    f"{self.workdir.path} makes no progress: the counters of its checkpoint say "
                    f"that epoch {self.progress.epochs + 1} goes on, and its arrays that it is "
                    f"over{REMEDY}"
                )
            return
        policy = self.options.on_divergence
        in_a_row = self.progress.skipped_in_a_row(records)
        if not records.healthy[-1] and (policy != "skip" or in_a_row >= divergence.MOST_SKIPPED):
            raise divergence.diverged(records, self.progress, self.options.max_loss, policy)
        epoch, steps_before = self.progress.epochs + 1, self.progress.time_steps
        values = self.progress.count(records)
        self.bar(self.write("train", epoch, values, self.progress.time_steps - steps_before))

    def write_roll_back(self, reason: str) -> None:
        """Takes another key, counts the roll-back and writes its row."""
        progress, state = self.progress, self.state.estimator_state
        progress.roll_backs += 1
        state = divergence.with_another_key(state, progress.roll_backs)
        self.state = self.state._replace(estimator_state=state)
        self.write("roll_back", progress.epochs + (not self.epoch_is_over), {"reason": reason})

    def write_measurement(self) -> None:
        """Measures at the state that the counters stand at, and writes the row."""
        assert self.measure is not None
        progress, state = self.progress, self.state
        values = self.measure(state.params, state.estimator_state, self.stream, progress.updates)
        values = {name: float(value) for name, value in jax.device_get(dict(values)).items()}
        # The epoch of the last update.
        self.write("measurement", progress.epochs + (not self.epoch_is_over), values)
        progress.measurements += 1
        progress.measured_updates = progress.updates

    def finish_epoch(self) -> None:
        """Evaluates, writes the row, and saves the params if they are the best."""
        progress = self.progress
        values = dict(self.evaluate(self.state.params)) if self.evaluate is not None else {}
        values = {
            **losses(progress.epoch_loss_sum, progress.epoch_num_losses, prefix="train_"),
            **{name: float(value) for name, value in values.items()},
        }
        if self.options.best_metric is not None:
            values["is_best"] = self.is_best(values)
        row = self.write("evaluation", progress.epochs, values)
        if values.get("is_best"):
            params = processes.whole(self.state.params)
            processes.from_first(lambda: self.checkpoints.save_best(params, without_nonfinite(row)))
        progress.evaluated_epochs = progress.epochs
        progress.epoch_loss_sum, progress.epoch_num_losses = 0.0, 0

    def is_best(self, values: Mapping[str, float]) -> bool:
        """Whether the evaluation is the best so far; it is then the one to beat."""
        name, progress = self.options.best_metric, self.progress
        if name not in values:
            raise ExperimentError(
                f"best_metric is {name!r}, but the evaluation gave only {', '.join(values)}."
            )
        value = values[name]
        if not math.isfinite(value):
            place = {"update": progress.updates, "time_step": progress.time_steps}
            raise TrainingDivergedError(
                "Training diverged: after update {update}, time step {time_step}, the evaluation "
                "gave {name} = {value}, which is not finite. Checkpoints saved before are as they "
                "were. Try a lower learning rate.".format(name=name, value=value, **place),
                **place,
            )
        if progress.best_value is not None and value >= progress.best_value:
            return False
        progress.best_value, progress.best_epoch = value, progress.epochs
        return True

    def save(self) -> None:
        state = processes.whole(with_scratch(self.state, ()))

        def write() -> None:
            # The rows first: a checkpoint must not point beyond the end of the file.
            self.progress.metrics_cursor = self.metrics.cursor()
            self.progress.metrics_hash = self.metrics.hash()
            progress = dataclasses.asdict(self.progress)
            self.checkpoints.save_latest(self.progress.milestones, state, progress)

        processes.from_first(write)
        self.saved_milestones = self.progress.milestones
        self.saved_seconds = self.progress.elapsed_seconds

    def write(
        self, kind: str, epoch: int, values: Mapping[str, Any], new_steps: int | None = None
    ) -> dict[str, Any]:
        """Writes a row of metrics with the counters and the seconds, and returns it."""
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        self.progress.elapsed_seconds += seconds
        clock = {"elapsed_seconds": self.progress.elapsed_seconds}
        clock |= {"steps_per_second": new_steps / seconds} if new_steps is not None else {}
        counters = {"update": self.progress.updates, "time_step": self.progress.time_steps}
        row = {"kind": kind, "epoch": epoch, **counters, **values, "time": clock}
        if processes.is_first():
            self.metrics.write(row)
        return row


def _refuse_rows(workdir: Workdir) -> None:
    """Raises CheckpointError if there are rows: a run saves a checkpoint before its first one."""
    if workdir.metrics_path.exists() and workdir.metrics_path.stat().st_size:
        raise CheckpointError(
            f"{workdir.path} has rows in {workdir.metrics_path.name} but no checkpoint: all were "
            f"removed{REMEDY}"
        )
