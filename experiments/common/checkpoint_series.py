"""Numbered checkpoints in one folder. Each is a folder that is complete, or not there.

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.common import array_trees
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


class Series:
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
            written = jax.tree.map(array_trees.on_the_host, tree)
            _check_space(temporary, array_trees.leaf_bytes(written))
            with _plain(temporary) as plain:
                self._orbax.save(plain / "tree", args=ocp.args.StandardSave(written))
            self._write_manifest(temporary, number, tree, record)
            read = self._read_tree(temporary, jax.tree.map(np.empty_like, written))
            if array_trees.leaf_bytes(read) != array_trees.leaf_bytes(written):
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
        # Listed again after each: a run that goes on may have saved another and deleted this one.
        while left := [number for number in self.numbers() if number not in damaged]:
            number = left[0]
            try:
                result = read(number)
            except DamagedCheckpointError as error:
                damaged[number] = str(error)
                continue
            for other, reason in damaged.items():
                if not (self.path / str(other)).exists():
                    continue
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
        saved, wanted = manifest["leaves"], array_trees.describe(like)
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
            values = self._read_tree(folder, jax.tree.map(array_trees.empty_like, like))
            return jax.tree.map(array_trees.restored_like, values, like), manifest
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
            "leaves": array_trees.describe(tree),
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


def compare_versions(manifest: dict[str, Any]) -> None:
    """Warns if the checkpoint was saved with other versions of the packages."""
    then, now = manifest["versions"], versions(_PACKAGES)
    differing = [
        f"{name} {then.get(name)}, now {now[name]}" for name in now if then.get(name) != now[name]
    ]
    if differing:
        warn(
            f"The checkpoint was saved with {'; '.join(differing)}: the run goes on, but not bit "
            "for bit as it would have."
        )
