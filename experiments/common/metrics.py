"""Metrics as JSON Lines, one object per row, and TensorBoard on request.

The position in the file belongs to a checkpoint: on resume the file is cut there, so that rows
written after the checkpoint, which the resumed run writes again, are not there twice.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from experiments.common.errors import CheckpointError


class MetricsWriter:
    """Appends rows to a file; a context manager.

    Args:
        path: the file; rows beyond `cursor` are cut off.
        cursor: bytes that belong to the run so far, from `cursor()` of an earlier writer.
        tensorboard_path: a folder for TensorBoard events as well; None for none.
        step: global step (`update`) that the cursor stands at; TensorBoard drops later events.

    Raises:
        CheckpointError: the file is shorter than the cursor.
    """

    def __init__(
        self,
        path: Path,
        *,
        cursor: int = 0,
        tensorboard_path: Path | None = None,
        step: int = 0,
    ) -> None:
        size = path.stat().st_size if path.exists() else 0
        if size < cursor:
            raise CheckpointError(
                f"{path} has {size} bytes, but the checkpoint was taken after {cursor}: rows were "
                "removed by hand. Restore the file, or start afresh in another --workdir."
            )
        self._file = path.open("ab")
        self._file.truncate(cursor)
        self._file.seek(cursor)
        self._tensorboard = None
        if tensorboard_path is not None:
            # Imported on request only: it takes a second.
            from tensorboardX import SummaryWriter

            purge_step = step + 1 if step else None
            self._tensorboard = SummaryWriter(str(tensorboard_path), purge_step=purge_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a row; with TensorBoard, its numbers become scalars "kind/name" at "update"."""
        line = json.dumps(without_nonfinite(row), allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        if self._tensorboard is not None:
            for name, value in {**row, **row.get("time", {})}.items():
                if isinstance(value, int | float) and name != "update":
                    self._tensorboard.add_scalar(f"{row['kind']}/{name}", value, row["update"])

    def cursor(self) -> int:
        """Bytes written so far, all of them on the disk when this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line cut short by a kill is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def without_nonfinite(value: Any) -> Any:
    """The value with null for NaN and infinity, which JSON does not have: every reader can read it.

    Looks into mappings, lists and tuples.
    """
    if isinstance(value, Mapping):
        return {name: without_nonfinite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nonfinite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
