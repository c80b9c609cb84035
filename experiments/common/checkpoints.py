"""Checkpoints of a run: the latest states, to resume from, and the best params, to use.

    checkpoints/latest/N    state and progress at milestone N of the run; the last two stay
    checkpoints/best/N      params, and a record of why they were the best so far
    checkpoints/damaged/    checkpoints that were passed over by a resumed run

Each of them is a folder:

    tree/            the arrays, written by orbax
    manifest.json    the record (counters), the identity of the run, size and SHA-256 of each file
                     of tree/, and a SHA-256 of all this

A save writes into the folder N.tmp, reads the arrays back, and renames it. It deletes an older
checkpoint only after that, so a process killed at any moment leaves the one before usable. Saving
is synchronous, so a state may be donated to the next call as soon as it returns.

A checkpoint is used only if it is as it was saved. orbax does not check this: a flipped bit in its
files mostly gives other arrays.
"""

import contextlib
import errno
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.common.errors import (
    REMEDY,
    CheckpointError,
    DamagedCheckpointError,
    one_line,
    warn,
)
from experiments.common.provenance import versions
from experiments.common.workdir import hash_of_json, write_atomically

_MANIFEST = "manifest.json"
_PACKAGES = ("jax", "jaxlib", "numpy", "optax", "orbax-checkpoint")

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
        self._latest = _Series(path.absolute() / "latest", 2, *common)
        self._best = _Series(path.absolute() / "best", 1, *common)

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
            _compare_versions(manifest)
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


class _Series:
    """The numbered checkpoints in one folder, of which the last `num_kept` stay."""

    def __init__(
        self,
        path: Path,
        num_kept: int,
        orbax: ocp.Checkpointer,
        identity: dict[str, str],
        read_only: bool,
    ) -> None:
        self.path, self._num_kept, self._orbax = path, num_kept, orbax
        self._identity, self._read_only = identity, read_only
        if read_only and not path.is_dir():
            raise CheckpointError(f"{path} does not exist: the run has saved no checkpoint yet.")
        if not read_only:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise CheckpointError(f"{path} cannot be used: {one_line(error)}.") from error
            # A save that was killed. A read-only process must not touch one that is going on.
            for left_over in [*path.glob("*.tmp"), *path.glob("*.orbax-checkpoint-tmp*")]:
                _remove(left_over)

    def numbers(self) -> list[int]:
        """The numbers of the checkpoints, newest first."""
        names = (entry.name for entry in self.path.iterdir())
        return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name))[::-1]

    def save(self, number: int, tree: Any, record: dict[str, Any]) -> None:
        """Saves, reads back, gives the checkpoint its name, and deletes the older ones."""
        folder, temporary = self.path / str(number), self.path / f"{number}.tmp"
        try:
            temporary.mkdir(parents=True)
            written = jax.tree.map(on_the_host, tree)
            _check_space(temporary, _bytes(written))
            with _plain(temporary) as plain:
                self._orbax.save(plain / "tree", args=ocp.args.StandardSave(written))
            self._write_manifest(temporary, number, tree, record)
            empty = jax.tree.map(np.empty_like, written)
            if _bytes(self._read_tree(temporary, empty)) != _bytes(written):
                raise CheckpointError("the arrays that were read back are not those written")
            temporary.rename(folder)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if not isinstance(error, Exception):
                raise
            raise CheckpointError(
                f"{folder} could not be saved: {one_line(error)}. The checkpoints before it are as "
                "they were: mend the cause (space, permissions), then go on with the same command "
                "and --resume."
            ) from error
        for older in self.numbers()[self._num_kept :]:
            _remove(self.path / str(older))

    def newest(self, read: Callable[[int], Any]) -> Any:
        """read(number) of the newest checkpoint that is not damaged; None where there is none.

        The damaged ones before it are named, and moved aside unless this is read-only: their
        numbers come again. CheckpointError where all are damaged.
        """
        damaged: dict[int, str] = {}
        for number in self.numbers():
            try:
                result = read(number)
            except DamagedCheckpointError as error:
                damaged[number] = str(error)
                continue
            for other, reason in damaged.items():
                warn(f"{self.path / str(other)} is not used: {reason}. {number} is used instead.")
                if not self._read_only:
                    self._move_aside(other)
            return result
        if not damaged:
            return None
        reasons = "; ".join(f"{number}: {reason}" for number, reason in damaged.items())
        raise CheckpointError(f"No checkpoint in {self.path} can be used ({reasons}){REMEDY}")

    def restore(self, number: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """(arrays, manifest), verified."""
        manifest = self.verify(number)
        saved, wanted = manifest["leaves"], _describe(like)
        differing = [
            f"  {name}: {saved.get(name, 'absent')} saved, {wanted.get(name, 'absent')} expected"
            for name in sorted(saved.keys() | wanted.keys())
            if saved.get(name) != wanted.get(name)
        ]
        folder = self.path / str(number)
        if differing:
            raise CheckpointError(
                f"The checkpoint {folder} does not fit: the code or the configuration is another "
                "one than when it was saved.\n" + "\n".join(differing)
            )
        try:
            values = self._read_tree(folder, jax.tree.map(_empty, like))
            return jax.tree.map(_like, values, like), manifest
        except Exception as error:
            raise DamagedCheckpointError(f"orbax cannot read it, {one_line(error)}") from error

    def verify(self, number: int) -> dict[str, Any]:
        """The manifest, if it and all files are as they were saved, else DamagedCheckpointError."""
        folder = self.path / str(number)
        try:
            manifest = _read_json(folder / _MANIFEST)
            if manifest.pop("sha256", None) != hash_of_json(manifest):
                raise DamagedCheckpointError(f"{_MANIFEST} was changed")
            if (manifest["series"], manifest["number"]) != (self.path.name, number):
                raise DamagedCheckpointError(
                    f"it was saved as {manifest['series']}/{manifest['number']}"
                )
            for name, value in self._identity.items():
                if manifest["identity"].get(name) != value:
                    raise DamagedCheckpointError(f"it belongs to a run with another {name}")
            for name, (size, sha256) in manifest["files"].items():
                _verify_file(folder / name, name, size, sha256)
        except OSError as error:
            raise DamagedCheckpointError(f"it cannot be read, {one_line(error)}") from error
        return manifest

    def _write_manifest(self, folder: Path, number: int, tree: Any, record: dict[str, Any]) -> None:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        manifest = {
            "series": self.path.name,
            "number": number,
            "record": record,
            "identity": self._identity,
            "versions": versions(_PACKAGES),
            "leaves": _describe(tree),
            "files": {
                str(path.relative_to(folder)): [path.stat().st_size, _hash_of_file(path)]
                for path in files
            },
        }
        text = json.dumps(manifest | {"sha256": hash_of_json(manifest)}, indent=1) + "\n"
        write_atomically(folder / _MANIFEST, text)

    def _read_tree(self, folder: Path, like: Any) -> Any:
        # Always with a tree to restore into: without one, orbax gives NamedTuples back as dicts.
        with _plain(folder) as plain:
            return self._orbax.restore(plain / "tree", args=ocp.args.StandardRestore(like))

    def _move_aside(self, number: int) -> None:
        aside = self.path.parent / "damaged" / f"{self.path.name}-{number}"
        aside.parent.mkdir(exist_ok=True)
        _remove(aside)
        (self.path / str(number)).rename(aside)


def hash_of_arrays(tree: Any) -> str:
    """SHA-256 over structure, shapes, dtypes and values of a pytree."""
    sha256 = hashlib.sha256(json.dumps(_describe(tree)).encode())
    for values in _bytes(tree):
        sha256.update(values)
    return sha256.hexdigest()


def on_the_host(leaf: Any) -> np.ndarray:
    """The leaf as orbax sees it: an array of NumPy, for a key that of its data."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


@contextlib.contextmanager
def _plain(folder: Path) -> Iterator[Path]:
    """A path to the folder that orbax and its storage take as it is.

    They read brackets and backslashes in a path as syntax: arrays saved there cannot be read. Such
    a folder gets a link in the folder for temporary files.
    """
    text = str(folder)
    if not re.search(r"[\[\]\\]", text) and text.isprintable():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as place:
        link = Path(place) / "link"
        link.symlink_to(folder)
        yield link


def _check_space(folder: Path, leaves: list[bytes]) -> None:
    """Raises OSError where the disk is full: orbax would print tracebacks besides."""
    # Files and blocks of orbax take some KiB a leaf.
    needed = sum(len(values) + 2**13 for values in leaves) + 2**16
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"No space left on device, {needed:,} bytes needed and {free:,} free"
        )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DamagedCheckpointError(f"{path.name} is missing")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpointError(f"{path.name} is not valid JSON") from error
    if not isinstance(value, dict):
        raise DamagedCheckpointError(f"{path.name} holds no JSON object")
    return value


def _verify_file(path: Path, name: str, size: int, sha256: str) -> None:
    # A regular file of the right size: reading a pipe or a device might never end.
    if not path.is_file():
        raise DamagedCheckpointError(f"{name} is missing")
    if path.stat().st_size != size:
        raise DamagedCheckpointError(f"{name} has {path.stat().st_size} bytes instead of {size}")
    if _hash_of_file(path) != sha256:
        raise DamagedCheckpointError(f"{name} was changed")


def _hash_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compare_versions(manifest: dict[str, Any]) -> None:
    then, now = manifest["versions"], versions(_PACKAGES)
    differing = [
        f"{name} {then.get(name)}, now {now[name]}" for name in now if then.get(name) != now[name]
    ]
    if differing:
        warn(
            f"The checkpoint was saved with {'; '.join(differing)}: the run goes on, but not bit "
            "for bit as it would have."
        )


def _describe(tree: Any) -> dict[str, str]:
    """{".params['readout']": "float32(6, 5)", ...}, for a message that names what differs."""
    return {
        jax.tree_util.keystr(path): f"{jax.numpy.result_type(leaf)}{np.shape(leaf)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _is_key(leaf: Any) -> bool:
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _empty(leaf: Any) -> np.ndarray:
    """An array to restore the leaf, which may be a `jax.ShapeDtypeStruct`, into."""
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return np.empty(leaf.shape, leaf.dtype)


def _like(values: np.ndarray, leaf: Any) -> Any:
    """The restored array as the leaf is: of NumPy, of JAX, or keys."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(jax.numpy.array(values), impl=jax.random.key_impl(leaf))
    return values if isinstance(leaf, np.ndarray | np.generic) else jax.numpy.array(values)


def _bytes(tree: Any) -> list[bytes]:
    return [on_the_host(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
