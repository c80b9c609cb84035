"""The counters of a run, its rows of metrics as JSON Lines, and its progress bar.

The position in the metrics file belongs to a checkpoint. A resumed run cuts the file there and
writes the rows after it again, so that no row is there twice.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from tqdm import tqdm

from experiments.common.errors import CheckpointError, DamagedCheckpointError


@dataclasses.dataclass
class Progress:
    """The counters on the host, saved with every checkpoint.

    They are the same after a resume as without an interruption, apart from the seconds.
    """

    epochs: int = 0  # complete passes of the stream
    evaluated_epochs: int = 0
    chunks: int = 0
    updates: int = 0
    time_steps: int = 0
    measurements: int = 0
    measured_updates: int = 0  # the number of updates at the last measurement
    epoch_loss_sum: float = 0.0  # of the present pass
    epoch_num_losses: int = 0
    best_value: float | None = None  # of the metric that chooses the best params
    best_epoch: int | None = None
    metrics_cursor: int = 0  # bytes of the metrics file that belong to these counters
    metrics_hash: str = hashlib.sha256().hexdigest()  # SHA-256 of these bytes
    skipped: int = 0  # segments whose update was left out
    skipped_at_end: int = 0  # of them, those since the last update
    roll_backs: int = 0
    elapsed_seconds: float = 0.0  # over all sessions

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The counters of a checkpoint; DamagedCheckpointError for others than these."""
        fields = {field.name: field.default for field in dataclasses.fields(cls)}
        wrong = sorted(record.keys() - fields.keys())
        for name, default in fields.items():
            kind = {"best_value": float, "best_epoch": int}.get(name, type(default))
            value = record.get(name, ...)
            if type(value) is not kind and not (default is None and value is None):
                wrong.append(name)
        if wrong:
            raise DamagedCheckpointError(f"its counters are wrong: {', '.join(wrong)}")
        return cls(**record)

    @property
    def milestones(self) -> int:
        """The number of rows of metrics so far, which numbers a checkpoint."""
        return self.chunks + self.measurements + self.evaluated_epochs + self.roll_backs

    def skipped_in_a_row(self, records: Any) -> int:
        """How many segments in a row were skipped at the end of this next chunk."""
        good = np.flatnonzero(records.healthy)
        number = len(records.healthy)
        return number - 1 - int(good[-1]) if good.size else self.skipped_at_end + number

    def count(self, records: Any) -> dict[str, Any]:
        """Adds the segments of a chunk (a `SegmentRecord`); returns their row of metrics.

        Those that were skipped count in time steps only. A row without an update has null for the
        loss and 0 for the rest.
        """
        num_skipped = int(np.sum(~np.asarray(records.healthy, bool)))
        self.skipped_at_end = self.skipped_in_a_row(records)
        self.skipped += num_skipped
        self.time_steps += int(np.sum(records.length, dtype=np.int64))
        self.epochs += int(records.end_of_stream[-1])
        if num_skipped:
            records = type(records)(*(rows[records.healthy] for rows in records))
        loss_sum = float(np.sum(records.loss_sum, dtype=np.float64))
        num_losses = int(np.sum(records.num_losses, dtype=np.int64))
        self.chunks += 1
        self.updates += len(records.length)
        self.epoch_loss_sum += loss_sum
        self.epoch_num_losses += num_losses
        look_backs = {}
        if np.any(records.look_back):
            mean = float(np.mean(records.look_back, dtype=np.float64))
            look_backs = {"mean_look_back": mean, "max_look_back": int(np.max(records.look_back))}
        number = len(records.length)
        return {
            "chunk": self.chunks,
            **losses(loss_sum, num_losses),
            "segments": number,
            "mean_length": float(np.sum(records.length, dtype=np.float64) / max(number, 1)),
            "max_length": int(np.max(records.length, initial=0)),
            "max_compensation": float(np.max(records.max_compensation, initial=0)),
            "max_weight": float(np.max(records.max_weight, initial=0)),
            "max_gradient_norm": float(np.max(records.gradient_norm, initial=0)),
            **look_backs,
            **({"skipped": num_skipped} if num_skipped else {}),
        }


def losses(loss_sum: float, num_losses: int, prefix: str = "") -> dict[str, float]:
    """Mean loss in nats and in bits; NaN without losses."""
    loss = loss_sum / num_losses if num_losses else math.nan
    return {f"{prefix}loss": loss, f"{prefix}bits": loss / math.log(2)}


class MetricsWriter:
    """Appends rows to a file; a context manager.

    Args:
        path: the file; rows beyond `cursor` are cut off.
        cursor: bytes of the run so far, from `cursor()` of an earlier writer. CheckpointError
            where the file is shorter.
        tensorboard_path: a folder for TensorBoard events as well; None for none.
        step: global step (`update`) at the cursor; TensorBoard drops later events.
    """

    def __init__(
        self, path: Path, cursor: int = 0, tensorboard_path: Path | None = None, step: int = 0
    ) -> None:
        size = path.stat().st_size if path.exists() else 0
        if size < cursor:
            raise CheckpointError(
                f"{path} has {size} bytes, but the checkpoint was taken after {cursor}: rows were "
                "removed by hand. Restore the file, or start afresh in another --workdir."
            )
        self._hash = hashlib.sha256(_first_bytes(path, cursor))
        self._file = path.open("ab")
        self._file.truncate(cursor)
        self._file.seek(cursor)
        self._tensorboard = None
        if tensorboard_path is not None:
            from tensorboardX import SummaryWriter  # it takes a second

            purge_step = step + 1 if step else None
            self._tensorboard = SummaryWriter(str(tensorboard_path), purge_step=purge_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a row; with TensorBoard, its numbers become scalars "kind/name" at "update"."""
        line = as_line(row).encode()
        self._file.write(line)
        self._file.flush()
        self._hash.update(line)
        if self._tensorboard is not None:
            for name, value in {**row, **row.get("time", {})}.items():
                if isinstance(value, int | float) and name != "update":
                    self._tensorboard.add_scalar(f"{row['kind']}/{name}", value, row["update"])

    def cursor(self) -> int:
        """Bytes written so far, all of them on the disk when this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def hash(self) -> str:
        """SHA-256 of the bytes written so far, earlier sessions included."""
        return self._hash.hexdigest()


def as_line(row: Mapping[str, Any]) -> str:
    """The line of a metrics file that holds the row."""
    return json.dumps(without_nonfinite(row), allow_nan=False) + "\n"


def check_rows(path: Path, progress: Progress) -> None:
    """Raises DamagedCheckpointError unless the rows up to the cursor are those counted."""
    rows = _first_bytes(path, progress.metrics_cursor)
    if len(rows) < progress.metrics_cursor:
        raise DamagedCheckpointError(
            f"{path.name} has {len(rows)} bytes, but it was saved after {progress.metrics_cursor}"
        )
    if hashlib.sha256(rows).hexdigest() != progress.metrics_hash:
        raise DamagedCheckpointError(f"{path.name} was changed")
    try:
        last = json.loads(rows.splitlines()[-1]) if rows else {"update": 0, "time_step": 0}
        counted = rows.count(b"\n"), last["update"], last["time_step"]
    except (ValueError, LookupError, TypeError) as error:
        raise DamagedCheckpointError(f"{path.name} was changed") from error
    if counted != (progress.milestones, progress.updates, progress.time_steps):
        raise DamagedCheckpointError(
            f"it counts {progress.milestones} rows, {progress.updates} updates and "
            f"{progress.time_steps} time steps, {path.name} {counted[0]}, {counted[1]}, "
            f"{counted[2]}"
        )


def _first_bytes(path: Path, count: int) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(count)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line cut short by a kill is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def largest_weight(train_rows: Sequence[Mapping[str, Any]]) -> float:
    """The largest weight of a loss in any gradient; the rows have null for infinity."""
    found = (row["max_weight"] for row in train_rows)
    return max((math.inf if weight is None else weight for weight in found), default=1.0)


def without_nonfinite(value: Any) -> Any:
    """The value with null for NaN and infinity, which JSON does not have, however deep inside."""
    if isinstance(value, Mapping):
        return {name: without_nonfinite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def progress_bar(
    total_steps: int, done_steps: int, show: bool | None
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Shows loss, bits, steps per second and time left; gives a function to call with each row.

    The bar begins at `done_steps`, of earlier sessions. show: None shows it on a terminal only.
    """
    style: Any = {"unit": "step", "unit_scale": True, "dynamic_ncols": True, "file": sys.stderr}
    hide = None if show is None else not show
    with tqdm(total=total_steps, initial=done_steps, disable=hide, **style) as bar:

        def advance(row: dict[str, Any]) -> None:
            numbers = {name: f"{row[name]:.4f}" for name in ("loss", "bits")}
            bar.set_postfix({"epoch": row["epoch"], **numbers}, refresh=False)
            bar.update(row["time_step"] - bar.n)

        yield advance
