"""The runs that a configuration of a sweep lists, and what is checked before any of them starts."""

import functools
import importlib
import itertools
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections

from experiments.common import catalogue, fields
from experiments.common.config import flatten, load_config
from experiments.common.errors import ConfigError, ExperimentError
from experiments.common.fields import Field
from experiments.ptb import cost as ptb_cost
from experiments.ptb import data as ptb_data
from experiments.ptb.config import default_config as ptb_defaults
from experiments.ptb.run import is_penn_treebank

FIELDS = {
    "experiment": Field("", "the experiment of the runs, such as memory"),
    "config": Field("", "their configuration file, as --config of the experiment takes it"),
    "set": Field({}, "values that all runs have: --set set.num_seeds=2"),
    "grid": Field({}, "values to try, in all combinations: --set 'grid.seed=(0, 1, 2)'"),
    "runs": Field({}, "named runs, each with an experiment, config and set of its own"),
}
_OF_A_RUN = ("experiment", "config", "set")
_LONGEST_NAME = 200  # a file system takes 255, and logs have an ending

# These start runs of their own, so a sweep does not start them.
_START_RUNS = ("ptb_authors", "ptb_study", "sweep")


class Run(NamedTuple):
    """One run of a sweep.

    Attributes:
        name: of its folder and its log.
        experiment: it is a process `python -m experiments.EXPERIMENT`.
        config_path: its `--config`; empty for none.
        values: (field, value) of its `--set`.
        own: those of the values that the configuration gives to some runs only.
    """

    name: str
    experiment: str
    config_path: str
    values: tuple[tuple[str, Any], ...]
    own: tuple[tuple[str, Any], ...]

    @property
    def overrides(self) -> list[str]:
        """The values as `--set` takes them."""
        return [f"{field}={value!r}" for field, value in self.values]

    def command(self, workdir: Path) -> list[str]:
        """Returns what starts the run, or resumes it."""
        command = [sys.executable, "-m", f"experiments.{self.experiment}"]
        command += ["--workdir", str(workdir), "--resume", "--noprogress_bar"]
        command += ["--config", self.config_path] if self.config_path else []
        return [*command, *(f"--set={override}" for override in self.overrides)]


def experiments() -> list[str]:
    """Returns the names of the experiments that a sweep can run."""
    return [name for name in catalogue.experiments() if name not in _START_RUNS]


def runs_of(config: Any) -> list[Run]:
    """Returns the runs of a configuration: each of `runs`, at each point of `grid`.

    Raises ConfigError where they cannot be told apart, or lack an experiment.
    """
    grid = flatten(config["grid"].to_dict())
    for field, values in grid.items():
        if not isinstance(values, tuple):
            raise ConfigError(f"grid.{field} was given {values!r}: expected values, ({values!r},).")
        fields.each_once(f"grid.{field}", values)
    found: dict[str, Run] = {}
    for name, entry in (config["runs"].to_dict() or {"": {}}).items():
        for point in itertools.product(*grid.values()):
            run = _run(config, name, entry, dict(zip(grid, point, strict=True)))
            if run.name in found:
                raise ConfigError(
                    f"Two runs would have the name {run.name}: give them names, in `runs`."
                )
            found[run.name] = run
    return list(found.values())


def checked_config(run: Run) -> ml_collections.FrozenConfigDict:
    """Returns the configuration of the run; ConfigError where the experiment would refuse it."""
    try:
        defaults, check = _experiment(run.experiment)
        path = run.config_path or None
        config = load_config(defaults, path, run.overrides, experiment=run.experiment)
        check(config)
    except ExperimentError as error:
        raise ConfigError(f"Run {run.name}: {error}") from error
    return config


def _run(config: Any, name: str, entry: Any, point: Mapping[str, Any]) -> Run:
    where = f"runs.{name}"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} was given {entry!r}: expected {', '.join(_OF_A_RUN)} in it.")
    if unknown := [part for part in entry if part not in _OF_A_RUN]:
        raise ConfigError(
            f"{where} was given {unknown[0]}: expected {', '.join(_OF_A_RUN)}. (The name of a run "
            "holds no dot, which separates sections.)"
        )
    given: dict[str, Any] = {name: config[name] for name in ("experiment", "config")}
    given |= {"set": {}, **entry}
    for field, kind in {"experiment": str, "config": str, "set": Mapping}.items():
        if not isinstance(given[field], kind):
            expected = "text" if kind is str else "fields and values"
            raise ConfigError(f"{where}.{field} was given {given[field]!r}: expected {expected}.")
    fields.one_of(*experiments())("experiment", given["experiment"])
    shared, own = flatten(config["set"].to_dict()), flatten(given["set"])
    if both := sorted(point.keys() & (shared | own)):
        raise ConfigError(f"grid and set both hold {both[0]}: name each field once.")
    own |= point
    full_name = "-".join([name or given["experiment"], *_words(point)])
    if not re.fullmatch(r"\w[\w.+=-]*", full_name) or len(full_name) > _LONGEST_NAME:
        expected = f"letters, digits and _ . + - only, and at most {_LONGEST_NAME} of them"
        raise ConfigError(f"A run would have the name {full_name!r}: expected {expected}.")
    values = tuple((shared | own).items())
    return Run(full_name, given["experiment"], given["config"], values, tuple(own.items()))


def _words(point: Mapping[str, Any]) -> list[str]:
    """field=value of each field, fit for the name of a file; sections are left out if possible."""
    short = [field.rpartition(".")[2] for field in point]
    names = short if len(set(short)) == len(short) else list(point)
    values = ["-".join(re.findall(r"[\w.+-]+", str(value))) for value in point.values()]
    return [f"{name}={value}" for name, value in zip(names, values, strict=True)]


def _experiment(name: str) -> tuple[ml_collections.ConfigDict, Callable[[Any], Any]]:
    """The defaults of an experiment, and the function that refuses a configuration."""
    if name == "ptb":
        return ptb_defaults(), _check_ptb
    study = importlib.import_module(f"experiments.{name}.__main__").STUDY
    return study.default_config(), study.check_config


def _check_ptb(config: Any) -> None:
    ptb_cost.cost(config)
    if is_penn_treebank(config):
        _read_penn_treebank()


@functools.cache
def _read_penn_treebank() -> None:
    """Raises DataError where the text is not there."""
    ptb_data.penn_treebank(None)
