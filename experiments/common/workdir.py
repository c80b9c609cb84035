"""A workdir: a folder that holds exactly one run.

config.json      the configuration of the run; what makes the folder this run's
metrics.jsonl    one row per chunk and per evaluation
checkpoints/     latest/ (everything, to resume) and best/ (parameters only)
tensorboard/     on request
"""

import dataclasses
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.common.errors import ConfigError, WorkdirError

# Folders locked by this process: {(device, inode): file descriptor}. Never closed: the operating
# system releases a lock when its process ends, in whatever way.
_LOCKS: dict[tuple[int, int], int] = {}


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The paths of one run. Made by `open_workdir` (to train) or `read_workdir` (to look)."""

    path: Path

    @property
    def config_path(self) -> Path:
        return self.path / "config.json"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints_path(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard_path(self) -> Path:
        return self.path / "tensorboard"


def open_workdir(path: str | Path, config: Any, *, resume: bool = False) -> Workdir:
    """Claims the folder for the run that `config` describes, or checks that it is that run's.

        missing or empty                     -> created, config.json written
        same config, resume                  -> opened as it is
        same config, no resume               -> error: pass --resume or take another folder
        another config, or another's files   -> error; the fields that differ are named
        in use by another process            -> error

    Nothing is written where an error is raised. The folder is locked until this process ends: two
    processes never write one run.

    Args:
        path: the folder; parents are created.
        config: a ConfigDict, FrozenConfigDict or dict of values that JSON can hold.
        resume: whether a run found there may go on. An empty folder starts a run either way, so
            that a job that is killed early can be started again by the same command.

    Raises:
        WorkdirError: as above, or the folder cannot be made, read or written.
        ConfigError: a value that JSON cannot hold.
    """
    workdir = Workdir(Path(path).expanduser().absolute())
    new = _as_json(config)
    try:
        if not workdir.config_path.exists():
            _refuse_foreign_files(workdir)
            workdir.path.mkdir(parents=True, exist_ok=True)
            _lock(workdir.path)
            # Looked at again: another process may have been first.
            if not workdir.config_path.exists():
                text = json.dumps(new, indent=2, sort_keys=True) + "\n"
                write_atomically(workdir.config_path, text)
                return workdir
        _refuse_other_run(workdir, new)
        if not resume:
            raise WorkdirError(
                f"{workdir.path} already holds this run: pass --resume to go on with it, "
                "or give another --workdir to start it afresh."
            )
        _lock(workdir.path)
    except OSError as error:
        raise WorkdirError(f"{workdir.path} cannot be used as a workdir: {error}") from error
    return workdir


def read_workdir(path: str | Path) -> tuple[Workdir, dict[str, Any]]:
    """A finished or running run and its configuration, for evaluation and sampling.

    Raises:
        WorkdirError: the folder holds no run, or its config.json was altered.
    """
    workdir = Workdir(Path(path).expanduser().absolute())
    if not workdir.config_path.is_file():
        raise WorkdirError(f"{workdir.path} holds no run: there is no {workdir.config_path.name}.")
    return workdir, _read_config(workdir)


def write_atomically(path: Path, text: str) -> None:
    """Writes the file whole or not at all, also when the process is killed half-way."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _as_json(config: Any) -> dict[str, Any]:
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    try:
        # Through JSON and back, so that a tuple equals the list that the file gives back.
        return json.loads(json.dumps(values))
    except TypeError as error:
        raise ConfigError(f"The configuration holds a value that JSON cannot: {error}.") from error


def _lock(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    status = os.fstat(descriptor)
    folder = status.st_dev, status.st_ino
    if folder in _LOCKS:
        os.close(descriptor)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise WorkdirError(
            f"{path} is in use by another process: wait for it, or end it."
        ) from error
    except OSError:
        # A file system without locks, as some network ones: runs must work there too.
        os.close(descriptor)
        return
    _LOCKS[folder] = descriptor


def _read_config(workdir: Workdir) -> dict[str, Any]:
    try:
        return json.loads(workdir.config_path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise WorkdirError(f"{workdir.config_path} is not valid JSON: {error}") from error


def _refuse_other_run(workdir: Workdir, new: dict[str, Any]) -> None:
    old_fields, new_fields = _flatten(_read_config(workdir)), _flatten(new)
    differing = [
        f"  {name}: {_show(old_fields, name)} there, {_show(new_fields, name)} given"
        for name in sorted(old_fields.keys() | new_fields.keys())
        if _show(old_fields, name) != _show(new_fields, name)
    ]
    if differing:
        raise WorkdirError(
            f"{workdir.path} holds another run. These fields differ:\n"
            + "\n".join(differing)
            + "\nGive another --workdir, or the configuration of the run that is there."
        )


def _refuse_foreign_files(workdir: Workdir) -> None:
    if workdir.path.exists() and not workdir.path.is_dir():
        raise WorkdirError(f"{workdir.path} is a file: --workdir expects a folder.")
    if workdir.path.is_dir():
        # Hidden files may be what a killed write_atomically left behind.
        foreign = sorted(p.name for p in workdir.path.iterdir() if not p.name.startswith("."))
        if foreign:
            raise WorkdirError(
                f"{workdir.path} is not empty ({', '.join(foreign[:5])}) and holds no run "
                "(no config.json): give an empty or new folder as --workdir."
            )


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _show(fields: Mapping[str, Any], name: str) -> str:
    return json.dumps(fields[name]) if name in fields else "absent"
