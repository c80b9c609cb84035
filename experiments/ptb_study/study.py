"""The arms of the study, and their runs as processes: which are left to run, and their results."""

import dataclasses
import itertools
import json
import math
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from experiments.common import fields
from experiments.common.arms import parse
from experiments.common.config import load_config
from experiments.common.errors import ConfigError, TrainingDivergedError, WorkdirError
from experiments.common.pool import Pool, Processes, run_jobs
from experiments.common.workdir import as_json, open_workdir, write_atomically
from experiments.ptb.config import default_config
from experiments.ptb.run import prepare
from experiments.ptb_study import measured, report
from experiments.ptb_study.report import Row, Run


class Compared(NamedTuple):
    """An arm of the study."""

    arm: str  # as in experiments.common.arms
    rates: tuple[float, ...]  # its tuning chooses one of them
    overrides: tuple[str, ...]  # `--set` values of its optimiser
    reference: str | None  # name of the arm whose bits are subtracted from its own, seed by seed

    @property
    def label(self) -> str:
        """The estimator, and the optimiser if it is SGD, for figures."""
        return parse(self.arm).label + ", SGD" * bool(self.overrides)


# Each rate is twice the one before. Every arm of an optimiser chooses from the same rates.
_ADAM = (4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2), ()
# Adam divides by a second moment that segments of random length inflate. The step of SGD, momentum
# included, is linear in the gradient: its mean is unbiased where the gradient is.
_SGD = (0.125, 0.25, 0.5, 1.0, 2.0), ("optimizer.name=sgd", "optimizer.options.momentum=0.9")

ARMS = {
    "tbptt50": Compared("tbptt(50, draw_offset=True)", *_ADAM, None),
    # As long as the segment of ARTBP that a random step is in: E[L²]/L0 = 197 at alpha = 4.
    "tbptt200": Compared("tbptt(200, draw_offset=True)", *_ADAM, "tbptt50"),
    "artbp-alpha4": Compared("artbp(50, alpha=4)", *_ADAM, "tbptt50"),
    "artbp-alpha6": Compared("artbp(50, alpha=6)", *_ADAM, "tbptt50"),
    # A third more backward work than TBPTT.
    "unbiased50": Compared("unbiased_tbptt(50, hazard=0.75)", *_ADAM, "tbptt50"),
    # The same boundaries as artbp-alpha4 on the same seed.
    "uncompensated": Compared("uncompensated(50, alpha=4)", *_ADAM, "tbptt50"),
    "sgd-tbptt50": Compared("tbptt(50, draw_offset=True)", *_SGD, None),
    "sgd-artbp-alpha4": Compared("artbp(50, alpha=4)", *_SGD, "sgd-tbptt50"),
}


def chosen_arms(
    names: Sequence[str], rates: Sequence[float] = (), declared: Mapping[str, Compared] = ARMS
) -> dict[str, Compared]:
    """The arms of these names, with `rates` instead of their own if there are any."""
    fields.one_of(*declared)("--arms", tuple(names))
    fields.each_once("--arms", tuple(names))
    return {
        name: declared[name]._replace(rates=tuple(rates) or declared[name].rates) for name in names
    }


@dataclasses.dataclass(frozen=True)
class Study:
    """What is to run: the arms by name, the seeds, and the flags of the study's command line."""

    arms: Mapping[str, Compared]
    tuning_seeds: Sequence[int]  # these choose the rates
    seeds: Sequence[int]  # these are compared; without any, the runs are the tuning's alone
    folder: pathlib.Path
    config_path: str | None = None
    overrides: Sequence[str] = ()
    data_dir: str | None = None
    run_arguments: Sequence[str] = ()  # further flags of a run, such as --tensorboard

    def __post_init__(self) -> None:
        for arm in self.arms.values():
            fields.between(0, math.inf)("--rates", arm.rates)
            # As in the names of folders.
            fields.each_once("--rates", tuple(f"{rate:g}" for rate in arm.rates))
        fields.each_once("--tuning_seeds", tuple(self.tuning_seeds))
        if self.seeds:
            fields.each_once("--seeds", tuple(self.seeds))
        for name in ("tuning_seeds", "seeds"):
            for seed in getattr(self, name):
                fields.seed(f"--{name}", seed)
        if both := sorted(set(self.tuning_seeds) & set(self.seeds)):
            raise ConfigError(
                f"--tuning_seeds and --seeds both hold {both}: the seeds compared must not have "
                "chosen the learning rate."
            )

    def tuning_runs(self, name: str) -> list[Run]:
        """One run per learning rate and tuning seed; none where a comparison has no choice."""
        rates = self.arms[name].rates
        if len(rates) < 2 and self.seeds:
            return []
        return [Run("tune", name, rate, seed) for seed in self.tuning_seeds for rate in rates]

    def runs(self, rows: Sequence[Row]) -> list[Run]:
        """All runs known so far: the comparison of an arm comes after its own tuning.

        Every arm is tried at its first rate before any is tried at its second.
        """
        turns = itertools.zip_longest(*map(self.tuning_runs, self.arms))
        runs = [run for turn in turns for run in turn if run is not None]
        rates = {name: self._chosen_rate(name, rows) for name in self.arms}
        for seed in self.seeds:
            runs += [Run("compare", n, rate, seed) for n, rate in rates.items() if rate is not None]
        return runs

    def describe_runs(self) -> str:
        """How many runs the whole study makes, in words."""
        tuning = sum(len(self.tuning_runs(name)) for name in self.arms)
        compared = len(self.arms) * len(self.seeds)
        return (
            f"Runs: {tuning + compared} of {len(self.arms)} arms, {tuning} that try learning rates "
            f"and {compared} that are compared. Each of them:"
        )

    def _chosen_rate(self, name: str, rows: Sequence[Row]) -> float | None:
        """None while the tuning lacks a result, and where each of its rates has diverged."""
        if len(self.arms[name].rates) == 1:
            return self.arms[name].rates[0]
        known = {report.run_of(row) for row in rows if not row["failure"] or report.diverged(row)}
        choice = report.choose_rate(rows, name)
        complete = known.issuperset(self.tuning_runs(name))
        return choice.rate if complete and choice and not choice.failed else None

    def claim(self) -> None:
        """Makes the folder this study's, or checks that it is; arms, rates and seeds may differ.

        Nothing is written where a run would be refused: ExperimentError.
        """
        for name, arm in self.arms.items():
            run = Run("compare", name, arm.rates[0], self.tuning_seeds[0])
            prepare(self.config(run), self.data_dir)
        # Named otherwise than in a run, so that the folder of a run is never taken for a study's.
        open_workdir(self.folder, {"study_of": self.config().to_dict()}, resume=True)

    def config(self, run: Run | None = None) -> Any:
        """The configuration of a run, or the one that all runs have in common."""
        overrides = self.overrides if run is None else self.run_overrides(run)
        return load_config(default_config(), self.config_path, overrides)

    def run_overrides(self, run: Run) -> list[str]:
        """`--set` values that turn the base configuration into the one of the run."""
        arm = self.arms[run.arm]
        unwatched = ["shadow.every=0"] if run.purpose == "tune" else []
        own = f"optimizer.learning_rate={run.learning_rate!r}", f"seed={run.seed}"
        return [*self.overrides, f"arm={arm.arm}", *arm.overrides, *unwatched, *own]

    def finished(self, run: Run) -> Row | None:
        """The row of a run whose results are on disk; WorkdirError for another configuration's."""
        path = self.folder / "runs" / run.name / "results.json"
        if not path.is_file():
            return None
        results = json.loads(path.read_text(encoding="utf-8"))
        given = as_json(self.config(run))
        if results["config"] != given:
            raise WorkdirError(
                f"{path} comes from another configuration than the one given: take another "
                "--workdir, or the --config and --set of the study that is there."
            )
        return run.row(results["valid_bpc"], results["test_bpc"])

    def command(self, run: Run) -> list[str]:
        """What starts a run in a process of its own, or resumes it."""
        command = [sys.executable, "-m", "experiments.ptb", "--resume", "--noprogress_bar"]
        command += ["--workdir", str(self.folder / "runs" / run.name), *self.run_arguments]
        command += ["--data_dir", self.data_dir] if self.data_dir else []
        command += ["--config", self.config_path] if self.config_path else []
        return [*command, *(f"--set={override}" for override in self.run_overrides(run))]

    def write_report(self, rows: Sequence[Row]) -> None:
        """Rewrites `table.md` and `results.json` from the rows so far."""
        write_atomically(self.folder / "results.json", json.dumps(rows, indent=2) + "\n")
        references = {name: arm.reference for name, arm in self.arms.items()}
        text = report.markdown(rows, references, self.seeds, self._setting())
        found = measured.measurements(self.folder, rows, list(self.arms))
        write_atomically(self.folder / "table.md", text + measured.markdown(found))

    def _setting(self) -> str:
        config = self.config()
        is_real = config.data.source == "ptb"
        text = "Penn Treebank" if is_real else "made-up text (not Penn Treebank)"
        options = config.optimizer.options.to_dict()
        optimizer = config.optimizer.name + (f" with {options}" if options else "")
        return (
            f"{text}: {config.model.cell.upper()} with {config.model.hidden_size} units, batch "
            f"{config.batch}, {config.num_epochs} epochs, optimiser {optimizer} where the arm "
            "names no other; parameters of the best epoch by validation."
        )


def run_study(
    study: Study,
    *,
    jobs: int,
    make_pool: Callable[[int, pathlib.Path], Pool] | None = None,
    write_report: Callable[[Sequence[Row]], None] | None = None,
) -> list[Row]:
    """Runs what is missing, up to `jobs` runs at the same time, and returns all rows.

    Args:
        study: says which runs there are, and what starts them.
        jobs: 1 or more.
        make_pool: `make_pool(jobs, folder)` runs the commands, as `slurm.make_pool`; by default
            they are processes of this machine.
        write_report: is called with the rows after every run; by default, that of the study.

    Runs that fail are reported in the table and do not stop the others; the next call tries them
    again. TrainingInterruptedError on Ctrl-C or SIGTERM: those running have saved a checkpoint.
    """
    pool = make_pool(jobs, study.folder / "slurm") if make_pool else Processes(jobs)
    study.claim()
    rows: list[Row] = []
    run_jobs(
        pool,
        study.folder / "logs",
        missing=lambda running: _missing(study, rows, running),
        command=study.command,
        ended=lambda run, exit_code: rows.append(_row(study, run, exit_code)),
        report=lambda running: (write_report or study.write_report)(rows),
    )
    return rows


def finished_rows(study: Study) -> list[Row]:
    """The rows of the runs whose results are on disk."""
    rows: list[Row] = []
    _missing(study, rows, frozenset())
    return rows


def _missing(study: Study, rows: list[Row], running: Set[Run]) -> list[Run]:
    """The runs left to start. Rows found on disk are added to `rows` first."""
    while True:
        known = {report.run_of(row) for row in rows} | running
        missing = [run for run in study.runs(rows) if run not in known]
        found = [row for run in missing if (row := study.finished(run)) is not None]
        if not found:
            return missing
        rows += found  # once more: a tuning that is complete makes further runs known


def _row(study: Study, run: Run, exit_code: int) -> Row:
    row = study.finished(run)
    if exit_code == 0 and row is not None:
        numbers = "valid {valid_bpc:.4f}, test {test_bpc:.4f}".format_map(row)
        print(f"done    {run.name}: {numbers}", flush=True)
        return row
    diverged = exit_code == TrainingDivergedError.exit_code
    what = "diverged" if diverged else f"exit code {exit_code}"
    failure = f"{what}, see logs/{run.name}.log"
    print(f"failed  {run.name}: {failure}", flush=True)
    return run.row(failure=failure)
