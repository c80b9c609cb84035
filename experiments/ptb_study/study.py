"""Many runs of experiments.ptb as processes: what is left to run, and what became of it."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence, Set
from typing import Any

from experiments.common.config import check_seed, load_config
from experiments.common.errors import (
    ConfigError,
    TrainingDivergedError,
    WorkdirError,
)
from experiments.common.pool import Processes
from experiments.common.workdir import open_workdir, write_atomically
from experiments.ptb.config import default_config
from experiments.ptb.run import prepare
from experiments.ptb_study import report, watched
from experiments.ptb_study.arms import ARMS, Arm
from experiments.ptb_study.report import Outcome, Run


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to run: the runs of a study follow from it and from the outcomes so far.

    arms: by name, each with its rates.
    """

    arms: Mapping[str, Arm]
    tuning_seeds: Sequence[int]
    seeds: Sequence[int]

    def __post_init__(self) -> None:
        for arm in self.arms.values():
            if not arm.rates or not all(0 < rate < math.inf for rate in arm.rates):
                raise ConfigError(f"--rates is {arm.rates}: expected finite positive numbers.")
            # As in the names of folders.
            _check_each_once("rates", arm.rates, [f"{rate:g}" for rate in arm.rates])
        for name, seeds in {"seeds": self.seeds, "tuning_seeds": self.tuning_seeds}.items():
            _check_each_once(name, seeds, seeds)
            for seed in seeds:
                check_seed(f"--{name}", seed)
        if not self.tuning_seeds:
            raise ConfigError("--tuning_seeds is empty: name one at least.")
        both = sorted(set(self.tuning_seeds) & set(self.seeds))
        if both:
            raise ConfigError(
                f"--tuning_seeds and --seeds both hold {both}: the seeds compared must not have "
                "chosen the learning rate."
            )

    def tuning_runs(self, name: str) -> list[Run]:
        """One run per learning rate and tuning seed; none where there is no choice."""
        rates = self.arms[name].rates
        if len(rates) < 2:
            return []
        return [Run("tune", name, rate, seed) for seed in self.tuning_seeds for rate in rates]

    def runs(self, outcomes: Sequence[Outcome]) -> list[Run]:
        """All runs known so far: the comparison of an arm comes after its own tuning."""
        runs = [run for name in self.arms for run in self.tuning_runs(name)]
        rates = {name: self._chosen_rate(name, outcomes) for name in self.arms}
        for seed in self.seeds:
            runs += [Run("compare", n, rate, seed) for n, rate in rates.items() if rate is not None]
        return runs

    def _chosen_rate(self, name: str, outcomes: Sequence[Outcome]) -> float | None:
        """None while the tuning goes on or lacks a run, and where each of its runs has diverged."""
        rates = self.arms[name].rates
        if len(rates) == 1:
            return rates[0]
        known = {o.run for o in outcomes if o.failure is None or o.diverged}
        if not known.issuperset(self.tuning_runs(name)):
            return None
        return report.best_rate(outcomes, name)


def chosen_arms(names: Sequence[str], rates: Sequence[float] = ()) -> dict[str, Arm]:
    """The arms of these names; `rates` instead of their own, if there are any.

    Raises:
        ConfigError: no name, an unknown one, or one twice.
    """
    unknown = [name for name in names if name not in ARMS]
    if unknown or not names:
        raise ConfigError(f"--arms holds {unknown}: expected some of {', '.join(ARMS)}.")
    _check_each_once("arms", names, names)
    arms = {name: ARMS[name] for name in names}
    if rates:
        arms = {n: dataclasses.replace(a, rates=tuple(rates)) for n, a in arms.items()}
    return arms


def _check_each_once(name: str, given: Sequence[Any], shown: Sequence[Any]) -> None:
    if len(set(shown)) < len(shown):
        raise ConfigError(f"--{name} is {list(given)}: expected each value once.")


@dataclasses.dataclass(frozen=True)
class Study:
    """Folder and base configuration of the runs.

    config_path, overrides: --config and --set, as given to the study.
    data_dir: --data_dir, as given to the study.
    run_arguments: further flags of a run, such as --tensorboard.
    """

    folder: pathlib.Path
    config_path: str | None
    overrides: Sequence[str]
    data_dir: str | None = None
    run_arguments: Sequence[str] = ()

    def claim(self, plan: Plan) -> None:
        """Makes the folder this study's, or checks that it is; arms, rates and seeds may differ.

        Raises:
            ExperimentError: a run of the plan would be refused, or the folder holds something else
                or is in use. Nothing is written then.
        """
        for name, arm in plan.arms.items():
            run = Run("compare", name, arm.rates[0], plan.tuning_seeds[0])
            prepare(self.config(run), self.data_dir)
        base = load_config(default_config(), self.config_path, self.overrides)
        # Named otherwise than in a run, so that the folder of a run is never taken for a study's.
        open_workdir(self.folder, {"study_of": base.to_dict()}, resume=True)

    def run_overrides(self, run: Run) -> list[str]:
        """`--set` values that turn the base configuration into that of the run."""
        tuning = ["shadow.every=0"] if run.purpose == "tune" else []
        return [
            *self.overrides,
            *ARMS[run.arm].overrides,
            *tuning,
            f"optimizer.learning_rate={run.learning_rate!r}",
            f"seed={run.seed}",
        ]

    def config(self, run: Run) -> Any:
        """The configuration of a run."""
        return load_config(default_config(), self.config_path, self.run_overrides(run))

    def finished(self, run: Run) -> Outcome | None:
        """The outcome of a run whose results are on disk, else None.

        Raises WorkdirError if they are those of another configuration.
        """
        path = self.folder / "runs" / run.name / "results.json"
        if not path.is_file():
            return None
        results = json.loads(path.read_text(encoding="utf-8"))
        if results["config"] != json.loads(json.dumps(self.config(run).to_dict())):
            raise WorkdirError(
                f"{path} comes from another configuration than the one given: take another "
                "--workdir, or the --config and --set of the study that is there."
            )
        return Outcome(run, results["valid_bpc"], results["test_bpc"])

    def command(self, run: Run) -> list[str]:
        """What starts a run in a process of its own, or resumes it."""
        command = [sys.executable, "-m", "experiments.ptb", "--resume", "--noprogress_bar"]
        command += ["--workdir", str(self.folder / "runs" / run.name), *self.run_arguments]
        command += ["--data_dir", self.data_dir] if self.data_dir else []
        command += ["--config", self.config_path] if self.config_path else []
        for override in self.run_overrides(run):
            command += ["--set", override]
        return command

    def log_path(self, run: Run) -> pathlib.Path:
        """What the process of a run prints."""
        return self.folder / "logs" / f"{run.name}.log"

    def write_report(self, plan: Plan, outcomes: Sequence[Outcome]) -> None:
        """Rewrites `table.md` and `results.json` from the outcomes so far."""
        rows = [outcome.as_row() for outcome in outcomes]
        write_atomically(self.folder / "results.json", json.dumps(rows, indent=2) + "\n")
        text = report.markdown(outcomes, plan.arms, plan.seeds, self._setting())
        found = watched.measurements(self.folder, outcomes, list(plan.arms))
        write_atomically(self.folder / "table.md", text + watched.markdown(found))

    def _setting(self) -> str:
        config: Any = load_config(default_config(), self.config_path, self.overrides)
        made_up = "made-up text (not Penn Treebank)"
        text = "Penn Treebank" if config.data.source == "ptb" else made_up
        options = config.optimizer.options.to_dict()
        with_options = f" with {options}" if options else ""
        return (
            f"{text}: {config.model.cell.upper()} with {config.model.hidden_size} units, batch "
            f"{config.batch}, {config.num_epochs} epochs, optimiser "
            f"{config.optimizer.name}{with_options} where the arm names no other; parameters of "
            "the best epoch by validation."
        )


def run_study(study: Study, plan: Plan, *, jobs: int) -> list[Outcome]:
    """Runs what is missing, up to `jobs` processes at the same time.

    Runs that fail are reported in the table and do not stop the others; they are tried again by
    the next call.

    Raises:
        TrainingInterruptedError: Ctrl-C or SIGTERM; those running have saved a checkpoint.
        ExperimentError: see `Study.claim`.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs is {jobs}: expected 1 or more.")
    study.claim(plan)
    outcomes: list[Outcome] = []
    with Processes(jobs) as processes:
        while True:
            outcomes += [_outcome(study, run, code) for run, code in processes.ended()]
            missing = _missing(study, plan, outcomes, processes.running)
            for run in missing[: processes.num_idle]:
                print(f"start   {run.name}", flush=True)
                processes.start(run, study.command(run), study.log_path(run))
            study.write_report(plan, outcomes)
            if not processes.running:
                return outcomes
            processes.wait_for_one()


def _missing(study: Study, plan: Plan, outcomes: list[Outcome], running: Set[Run]) -> list[Run]:
    """The runs left to start. Outcomes found on disk are added to `outcomes` first."""
    while True:
        known = {outcome.run for outcome in outcomes} | running
        missing = [run for run in plan.runs(outcomes) if run not in known]
        found = [outcome for run in missing if (outcome := study.finished(run)) is not None]
        if not found:
            return missing
        outcomes += found  # once more: a tuning that is complete makes further runs known


def _outcome(study: Study, run: Run, exit_code: int) -> Outcome:
    outcome = study.finished(run)
    if exit_code == 0 and outcome is not None:
        numbers = f"valid {outcome.valid_bpc:.4f}, test {outcome.test_bpc:.4f}"
        print(f"done    {run.name}: {numbers}", flush=True)
        return outcome
    diverged = exit_code == TrainingDivergedError.exit_code
    what = "diverged" if diverged else f"exit code {exit_code}"
    failure = f"{what}, see logs/{run.name}.log"
    print(f"failed  {run.name}: {failure}", flush=True)
    return Outcome(run, failure=failure)
