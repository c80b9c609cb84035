"""Checkpoints of a run: the latest state, to resume from, and the best params, to use.

    checkpoints/latest/N    state and progress at milestone N of the run; the last two stay
    checkpoints/best/N      params, and a record of why they were the best so far

orbax writes a checkpoint into a temporary folder and renames it when it is complete. It deletes an
older one only after that, so a process killed at any moment leaves the one before usable. Saving is
synchronous, so a state may be donated to the next call as soon as it returns.
"""

from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.common.errors import CheckpointError


class Checkpoints:
    """Reads and writes the checkpoints in a folder; a context manager.

    read_only: create and delete nothing (to look at a run that may be going on).
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._latest = _manager(path / "latest", max_to_keep=2, read_only=read_only)
        self._best = _manager(path / "best", max_to_keep=1, read_only=read_only)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._latest.close()
        self._best.close()

    def save_latest(self, number: int, state: Any, progress: dict[str, Any]) -> None:
        """Saves a pytree of arrays and keys, with counters that JSON can hold; numbers rise."""
        _save(self._latest, number, state, progress)

    def restore_latest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """(state, progress) of the latest checkpoint, or None where there is none yet.

        `like` is a state of the same structure, shapes and dtypes, else CheckpointError.
        """
        number = self._latest.latest_step()
        return None if number is None else _restore(self._latest, number, like)

    def save_best(self, params: Any, record: dict[str, Any]) -> None:
        """Saves the best params so far, then deletes the ones before.

        They are numbered by themselves and not by the epoch: a run resumed from before its best
        evaluation comes to that epoch again, and must not replace the folder in place.
        """
        _save(self._best, (self._best.latest_step() or 0) + 1, params, record)

    def restore_best(self, like: Any) -> tuple[Any, dict[str, Any]]:
        """(params, record) of the best evaluation; CheckpointError where there is none.

        `like` as for `restore_latest`, or its `jax.eval_shape`.
        """
        number = self._best.latest_step()
        if number is None:
            raise CheckpointError(
                f"{self._best.directory} holds no checkpoint: the run has not come to its first "
                "evaluation, or names no metric to choose the best by."
            )
        return _restore(self._best, number, like)


def _manager(path: Path, *, max_to_keep: int, read_only: bool) -> ocp.CheckpointManager:
    if read_only and not path.is_dir():
        raise CheckpointError(f"{path} does not exist: the run has saved no checkpoint yet.")
    options = ocp.CheckpointManagerOptions(
        max_to_keep=max_to_keep,
        # A temporary folder may be one that the run is writing just now.
        cleanup_tmp_directories=not read_only,
        create=not read_only,
        enable_async_checkpointing=False,
    )
    return ocp.CheckpointManager(path.absolute(), options=options)


def _save(manager: ocp.CheckpointManager, number: int, tree: Any, record: dict[str, Any]) -> None:
    notes = {"record": record, "leaves": _describe(tree)}
    args = ocp.args.Composite(tree=ocp.args.StandardSave(tree), notes=ocp.args.JsonSave(notes))
    manager.save(number, args=args, force=True)


def _restore(manager: ocp.CheckpointManager, number: int, like: Any) -> tuple[Any, dict[str, Any]]:
    only_notes = ocp.args.Composite(notes=ocp.args.JsonRestore())
    notes = manager.restore(number, args=only_notes)["notes"]
    saved, wanted = notes["leaves"], _describe(like)
    differing = [
        f"  {name}: {saved.get(name, 'absent')} saved, {wanted.get(name, 'absent')} expected"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name)
    ]
    if differing:
        raise CheckpointError(
            f"The checkpoint {manager.directory / str(number)} does not fit: the code or the "
            "configuration is another one than when it was saved.\n" + "\n".join(differing)
        )
    # Always with a tree to restore into: without one, orbax gives NamedTuples back as dicts.
    args = ocp.args.Composite(tree=ocp.args.StandardRestore(like))
    return manager.restore(number, args=args)["tree"], notes["record"]


def _describe(tree: Any) -> dict[str, str]:
    """{".params['readout']": "float32(6, 5)", ...}, for a message that names what differs."""
    return {
        jax.tree_util.keystr(path): f"{jax.numpy.result_type(leaf)}{np.shape(leaf)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
