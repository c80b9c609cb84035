"""Checkpoints of a run: the latest states, to resume from, and the best params, to use.

    checkpoints/latest/N    state and progress at milestone N of the run; the last two stay
    checkpoints/best/N      params, and a record of why they were the best so far
    checkpoints/damaged/    checkpoints that were passed over by a resumed run

`experiments.common.checkpoint_series` says what is in the folder of a checkpoint.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

from experiments.common.checkpoint_series import Series, compare_versions
from experiments.common.errors import REMEDY, CheckpointError

# check(state, progress) raises DamagedCheckpointError where they do not belong together.
Check = Callable[[Any, dict[str, Any]], None]


class Checkpoints:
    """Reads and writes the checkpoints in a folder; a context manager.

    identity: names and hashes of what makes this run, saved with each checkpoint. A checkpoint in
        which one of them differs belongs to another run and counts as damaged.
    read_only: create, move and delete nothing (to look at a run that may be going on).
    """

    def __init__(
        self, path: Path, *, identity: Mapping[str, str] | None = None, read_only: bool = False
    ) -> None:
        # Of several processes, one alone calls this: orbax must not wait for the others.
        here = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
        )
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
        self._orbax = ocp.Checkpointer(handler, multiprocessing_options=alone)
        common = self._orbax, dict(identity or {}), read_only
        self._latest = Series(path.absolute() / "latest", 2, *common)
        self._best = Series(path.absolute() / "best", 1, *common)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._orbax.close()

    def save_latest(self, number: int, state: Any, progress: dict[str, Any]) -> None:
        """Saves a pytree of arrays and keys, with counters that JSON can hold; numbers rise."""
        self._latest.save(number, state, progress)

    def restore_latest(
        self, like: Any, check: Check = lambda state, progress: None
    ) -> tuple[Any, dict[str, Any]] | None:
        """(state, progress) of the latest intact checkpoint, or None where nothing is saved yet.

        A checkpoint that is damaged, or that `check` refuses, is named in a warning, moved aside,
        and passed over for the one before. CheckpointError where none is left.

        `like` is a state of the same structure, shapes and dtypes, else CheckpointError.
        """

        def restore(number: int) -> tuple[Any, dict[str, Any]]:
            state, manifest = self._latest.restore(number, like)
            check(state, manifest["record"])
            compare_versions(manifest)
            return state, manifest["record"]

        restored = self._latest.newest(restore)
        if restored is None and self._best.numbers():
            raise CheckpointError(
                f"{self._latest.path} holds no checkpoint, but {self._best.path} does: it was "
                f"removed{REMEDY}"
            )
        return restored

    def save_best(self, params: Any, record: dict[str, Any]) -> None:
        """Saves the best params so far, then deletes the ones before.

        They are numbered by themselves and not by the epoch: a run resumed from before its best
        evaluation comes to that epoch again, and must not replace the folder in place.
        """
        self._best.save(max(self._best.numbers(), default=0) + 1, params, record)

    def restore_best(self, like: Any) -> tuple[Any, dict[str, Any]]:
        """(params, record) of the best evaluation; CheckpointError where there is none.

        `like` as for `restore_latest`, or its `jax.eval_shape`.
        """
        restored = self._best.newest(lambda number: self._best.restore(number, like))
        if restored is None:
            raise self._no_best()
        params, manifest = restored
        return params, manifest["record"]

    def best_record(self) -> dict[str, Any]:
        """The record of the best evaluation, whose files are verified; errors as `restore_best`."""
        manifest = self._best.newest(self._best.verify)
        if manifest is None:
            raise self._no_best()
        return manifest["record"]

    def _no_best(self) -> CheckpointError:
        return CheckpointError(
            f"{self._best.path} holds no checkpoint: the run has not come to its first "
            "evaluation, names no metric to choose the best by, or the folder was removed."
        )
