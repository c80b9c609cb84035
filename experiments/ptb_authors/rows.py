"""One row per run, finished or not: its curves and, at the end, its scores."""

import csv
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common.config import flatten
from experiments.common.errors import CheckpointError, ConfigError, warn
from experiments.common.metrics import read_metrics
from experiments.common.report import Row
from experiments.common.workdir import (
    Workdir,
    as_json,
    differing_fields,
    read_workdir,
    write_atomically,
)
from experiments.ptb.config import default_config
from experiments.ptb_authors import since_zero
from experiments.ptb_authors.arms import ARMS
from experiments.ptb_study.report import Run
from experiments.ptb_study.study import Study

# Numbers of github.com/ctallec/bigart at dd508e3, logs of May 2017 (MIT licence): bits per
# character after each of 20 epochs, 6 runs of each method with 1000 units. (There are 7 files of
# each, and one is a copy.) Run 1 of ARTBP and run 2 of TBPTT have a forget bias of 2.
_AUTHORS = pathlib.Path(__file__).parents[1] / "results" / "ptb_authors" / "authors_curves.csv"

# Fields in which the runs of a study differ, and fields that change no number but by rounding.
_NOT_COMPARED = ("arm", "seed", "optimizer.learning_rate", "driver", "shadow.")


def authors_curves() -> dict[str, dict[str, np.ndarray]]:
    """{"artbp" and "tbptt": {"train" and "valid": bits, [runs, epochs]}} of the authors' logs."""
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    with _AUTHORS.open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            curves = found.setdefault(line["method"], {"train": {}, "valid": {}})
            for text, of_run in curves.items():
                of_run.setdefault(int(line["run"]), []).append(float(line[f"{text}_bpc"]))
    return {
        method: {text: np.array(list(runs.values())) for text, runs in curves.items()}
        for method, curves in found.items()
    }


def collect(study: Study, runs: Sequence[Run], *, score_unfinished: bool = False) -> list[Row]:
    """The rows of these runs, without those that have finished no epoch.

    A row has the fields of `Run`, "training" (see `training_of`), "train_bits" and "valid_bpc" for
    each finished epoch and, if the run is finished, "results" (bits at batch 1 and in columns, and
    the number of characters of each text) and "scores" (see `since_zero.scores`); otherwise these
    are None. With `score_unfinished`, a run that is not finished has "scores", too: those of its
    best params so far. A run whose params cannot be read is named, and has none.
    """
    rows = []
    for run in dict.fromkeys(runs):
        folder = study.folder / "runs" / run.name
        written = folder / "metrics.jsonl"
        lines = read_metrics(written) if written.is_file() else []
        epochs = [line for line in lines if line["kind"] == "evaluation"]
        if not epochs:
            continue
        config = study.config(run)
        _refuse_other_training(str(folder), training_of(read_workdir(folder)[1]), config)
        row = run._asdict() | {"units": config.model.hidden_size, "training": training_of(config)}
        row |= {name: [epoch[name] for epoch in epochs] for name in ("train_bits", "valid_bpc")}
        row |= {"results": None, "scores": None}
        if study.finished(run) is not None:
            results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
            names = ("valid_bpc", "test_bpc", "in_columns", "best_epoch", "characters")
            row |= {"results": {name: results.get(name) for name in names}}
            row |= {"scores": _scores(folder, study.data_dir)}
        elif score_unfinished:
            try:
                row |= {"scores": since_zero.scores(folder, study.data_dir)}
            except CheckpointError as error:
                warn(f"{run.name} is not scored: {error}")
        rows.append(row)
    return rows


def training_of(config: Any) -> dict[str, Any]:
    """{"section.field": value} of a configuration: the fields in which compared runs must agree.

    A field that the configuration does not have was added later, and has its default.
    """
    fields = flatten(as_json(default_config())) | flatten(as_json(config))
    return {name: value for name, value in fields.items() if not name.startswith(_NOT_COMPARED)}


def read(paths: Sequence[str], config: Any) -> list[Row]:
    """The rows in these files, of other folders of a study with the configuration `config`.

    ConfigError for a file that cannot be read, or a row of another training. Rows of earlier
    versions do not hold their training. For these it is that of the config.json beside the file. If
    there is none, only the units and the number of epochs are compared.
    """
    units, num_epochs = config.model.hidden_size, config.num_epochs
    rows = []
    for path in paths:
        try:
            beside = _training_beside(pathlib.Path(path))
            text = pathlib.Path(path).read_text(encoding="utf-8")
            found = [json.loads(line) for line in text.splitlines()]
            known = [
                (_run(row), row["units"], *_progress(row), row.get("training", beside))
                for row in found
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"--rows: cannot read {path}: {error!r}. Expected a rows.jsonl of this study."
            ) from error
        for _, of_row, is_finished, epochs, training in known:
            if training is not None:
                _refuse_other_training(path, training, config)
            if of_row != units or epochs > num_epochs or (is_finished and epochs < num_epochs):
                raise ConfigError(
                    f"--rows: {path} has a run with {of_row} units and {epochs} epochs. Expected "
                    f"runs with {units} units and {num_epochs} epochs, as those of this study: "
                    "their numbers are compared."
                )
        rows += found
    return rows


def _training_beside(path: pathlib.Path) -> dict[str, Any] | None:
    """That of the study in whose folder the file lies; None if there is no config.json."""
    workdir = Workdir(path.parent)
    if not workdir.config_path.is_file():
        return None
    return training_of(workdir.read_config()["study_of"])


def _refuse_other_training(path: str, training: dict[str, Any], config: Any) -> None:
    there = training_of(default_config()) | training
    fields = differing_fields(there, training_of(config))
    differing = [f"{name} ({a!r} there, {b!r} here)" for name, a, b in fields]
    if differing:
        raise ConfigError(
            f"{path} has a run of another training than this study's. These fields differ: "
            f"{', '.join(differing)}. Expected the same training: the numbers are compared."
        )


def joined(found: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """All rows, one for each arm, rate and seed: the one that has come farthest."""
    if not others:
        return list(found)
    by_run: dict[tuple[int, float, int], Row] = {}
    for row in (*found, *others):
        known = by_run.setdefault(_run(row), row)
        if _progress(row) > _progress(known):
            by_run[_run(row)] = row
    return [by_run[run] for run in sorted(by_run)]


def _run(row: Row) -> tuple[int, float, int]:
    """What tells a run from others, in the order of a table."""
    return list(ARMS).index(row["arm"]), -row["learning_rate"], row["seed"]


def _progress(row: Row) -> tuple[bool, int]:
    return row["results"] is not None, len(row["valid_bpc"])


def _scores(folder: pathlib.Path, data_dir: str | None) -> Any:
    """`since_zero.scores`, computed once and stored in the folder of the run."""
    path = folder / "since_zero.json"
    if not path.is_file():
        scores = since_zero.scores(folder, data_dir)
        write_atomically(path, json.dumps(scores) + "\n")
    return json.loads(path.read_text(encoding="utf-8"))
