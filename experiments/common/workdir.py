"""A workdir is a folder that holds exactly one run.

config.json      the configuration of the run, by which the folder is recognised
starts.jsonl     command, commit, machine and versions: a row for each start, or for the last one
                 where a run starts from the beginning each time
metrics.jsonl    one row per chunk, measurement and evaluation
checkpoints/     latest/ (everything, to resume) and best/ (params only)
tensorboard/     on request
"""

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.common import provenance
from experiments.common.config import flatten
from experiments.common.errors import ConfigError, WorkdirError

# Folders locked by this process: {(device, inode): file descriptor}. Never closed: the operating
# system releases a lock when its process ends, in whatever way.
_LOCKS: dict[tuple[int, int], int] = {}


class Workdir:
    """The paths of one run. Made by `open_workdir` (to train) or `read_workdir` (to look)."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        self.config_path = self.path / "config.json"
        self.starts_path = self.path / "starts.jsonl"
        self.metrics_path = self.path / "metrics.jsonl"
        self.checkpoints_path = self.path / "checkpoints"
        self.tensorboard_path = self.path / "tensorboard"

    def read_config(self) -> dict[str, Any]:
        """The configuration of the run; WorkdirError where the file was altered."""
        try:
            config = json.loads(self.config_path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise WorkdirError(f"{self.config_path} is not valid JSON: {error}") from error
        if not isinstance(config, dict):
            raise WorkdirError(f"{self.config_path} holds {config!r}: expected a JSON object.")
        return config

    def record_start(self, *, anew: bool = False) -> None:
        """Adds a row to starts.jsonl, or begins it `anew`.

        Only for the process that computes: asking JAX for a device may reserve the memory of a GPU.
        """
        row = {"time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
        row |= {"command": provenance.command(), "commit": provenance.commit()}
        row |= provenance.machine()
        is_first = anew or not self.starts_path.is_file()
        before = [] if is_first else self.starts_path.read_bytes().splitlines()
        lines = [*before, json.dumps(row).encode()]
        write_atomically(self.starts_path, b"\n".join(lines) + b"\n")

    def read_starts(self) -> list[dict[str, Any]]:
        """The rows of starts.jsonl, without lines that are damaged; [] where there is no file."""
        if not self.starts_path.is_file():
            return []
        rows = []
        for line in self.starts_path.read_bytes().splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                rows.append(json.loads(line))
        return [row for row in rows if _is_start(row)]

    def config_hash(self) -> str:
        """By which a checkpoint is recognised as one of this run."""
        return hash_of_json(self.read_config())


def open_workdir(path: str | Path, config: Any, *, resume: bool = False) -> Workdir:
    """Claims the folder for the run that `config` describes, or checks that it is that run's.

        missing or empty                     -> created, config.json written
        same config, resume                  -> opened as it is
        same config, no resume               -> error: pass --resume or take another folder
        another config, or another's files   -> error; the fields that differ are named
        in use by another process            -> error

    The errors are a WorkdirError, or a ConfigError for a value that JSON cannot hold; nothing is
    written then. The folder is locked until this process ends: two processes never write one run.
    An empty folder starts a run with `resume` too, so that a job that is killed early can be
    started again by the same command.
    """
    workdir, new = Workdir(path), as_json(config)
    try:
        if not workdir.config_path.exists():
            _refuse_foreign_files(workdir.path)
            workdir.path.mkdir(parents=True, exist_ok=True)
            _lock(workdir.path)
            # Looked at again: another process may have been first.
            if not workdir.config_path.exists():
                write_atomically(workdir.config_path, config_text(new))
                return workdir
        refuse_other_run(workdir, new)
        if not resume:
            raise WorkdirError(
                f"{workdir.path} already holds this run: pass --resume to go on with it, "
                "or give another --workdir to start it afresh."
            )
        _lock(workdir.path)
        # The first file that a run writes shows whether the disk is full or cannot be written.
        write_atomically(workdir.config_path, config_text(new))
    except OSError as error:
        raise WorkdirError(
            f"{workdir.path} cannot be used as a workdir: {error}. Mend this, or give another "
            "--workdir."
        ) from error
    return workdir


def read_workdir(path: str | Path) -> tuple[Workdir, dict[str, Any]]:
    """A finished or running run and its configuration; WorkdirError where there is none."""
    workdir = Workdir(path)
    if not workdir.config_path.is_file():
        raise WorkdirError(f"{workdir.path} holds no run: there is no {workdir.config_path.name}.")
    return workdir, workdir.read_config()


def as_json(config: Any) -> dict[str, Any]:
    """Returns the configuration as config.json gives it back: a tuple becomes a list.

    Raises ConfigError for a value that JSON cannot hold.
    """
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    try:
        return json.loads(json.dumps(values))
    except TypeError as error:
        raise ConfigError(f"The configuration holds a value that JSON cannot: {error}.") from error


def refuse_other_run(workdir: Workdir, new: dict[str, Any]) -> None:
    """Raises WorkdirError where the folder holds a run with another configuration.

    Args:
        workdir: a folder that holds a run.
        new: the configuration that is expected there, made by `as_json`.
    """
    there, given = (
        {name: json.dumps(value) for name, value in flatten(config).items()}
        for config in (workdir.read_config(), new)
    )
    differing = [f"  {name}: {a} there, {b} given" for name, a, b in differing_fields(there, given)]
    if differing:
        raise WorkdirError(
            f"{workdir.path} holds another run. These fields differ:\n"
            + "\n".join(differing)
            + "\nGive another --workdir, or the configuration of the run that is there."
        )


def differing_fields(
    there: Mapping[str, Any], given: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """The fields that differ: (name, value there, value given); "absent" for a missing one."""
    return [
        (name, there.get(name, "absent"), given.get(name, "absent"))
        for name in sorted(there.keys() | given.keys())
        if there.get(name) != given.get(name)
    ]


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes the file whole or not at all, also when the process is killed half-way.

    A text is written as UTF-8.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def hash_of_json(value: Any) -> str:
    """SHA-256 of a value that JSON can hold, whatever the order of names and the spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def config_text(values: dict[str, Any]) -> str:
    """Returns the text of config.json, from what `as_json` returns."""
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def _is_start(row: Any) -> bool:
    kinds = {"time": str, "command": str, "commit": str | None, "cpu": str, "cores": int | None}
    kinds |= {"device": str, "versions": dict}
    return isinstance(row, dict) and all(
        name in row and isinstance(row[name], kind) for name, kind in kinds.items()
    )


def _lock(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    status = os.fstat(descriptor)
    folder = status.st_dev, status.st_ino
    if folder not in _LOCKS:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _LOCKS[folder] = descriptor
            return
        except BlockingIOError as error:
            os.close(descriptor)
            message = f"{path} is in use by another process: wait for it, or end it."
            raise WorkdirError(message) from error
        except OSError:
            pass  # A file system without locks, as some network ones: runs must work there too.
    os.close(descriptor)


def _refuse_foreign_files(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise WorkdirError(f"{path} is a file: --workdir expects a folder.")
    # Hidden files may be what a killed write_atomically left behind.
    names = (entry.name for entry in path.iterdir()) if path.is_dir() else ()
    foreign = sorted(name for name in names if not name.startswith("."))
    if foreign:
        raise WorkdirError(
            f"{path} is not empty ({', '.join(foreign[:5])}) and holds no run "
            "(no config.json): give an empty or new folder as --workdir."
        )
