"""The comparison: learning rates tuned per method, then paired seeds, a table with intervals.

    python -m experiments.ptb.study --config configs/ptb/small.py --workdir DIR --jobs 2

1. Each method at each of --rates, with --tuning_seed: the best validation bits choose its rate.
2. Each method at its rate, with each of --seeds. A seed fixes the initial parameters and the cuts.
   The initial parameters are common to the methods, and that is all the pairing there is: the cuts
   are each method's own, and the order of the data never changes.
3. `table.md` and `results.json` (one object per run) in --workdir, rewritten after every run.

Every run is a process of its own with its own folder in --workdir/runs and its log in
--workdir/logs. The same command again goes on where it was: finished runs are kept, others resumed,
with or without --resume.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.common import cli
from experiments.common.config import check_seed, load_config
from experiments.common.errors import (
    ConfigError,
    ExperimentError,
    TrainingDivergedError,
    TrainingInterruptedError,
    WorkdirError,
)
from experiments.common.interrupts import Interrupts, catch_interrupts
from experiments.common.optimizers import CLIPPING_HELP
from experiments.common.workdir import open_workdir, write_atomically
from experiments.ptb import report
from experiments.ptb.config import METHODS, default_config
from experiments.ptb.report import Arm, Outcome
from experiments.ptb.run import DATA_DIR, prepare

_POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to run: the arms of a study follow from it and from the outcomes so far."""

    methods: Sequence[str]
    rates: Sequence[float]
    tuning_seed: int
    seeds: Sequence[int]

    def __post_init__(self) -> None:
        unknown = [method for method in self.methods if method not in METHODS]
        if unknown or not self.methods:
            raise ConfigError(f"--methods holds {unknown}: expected some of {', '.join(METHODS)}.")
        if not self.rates or not all(0 < rate < math.inf for rate in self.rates):
            raise ConfigError(f"--rates is {self.rates}: expected finite positive numbers.")
        # Rates as in the names of folders.
        rates = [f"{rate:g}" for rate in self.rates]
        lists = {"methods": self.methods, "rates": rates, "seeds": self.seeds}
        for name, values in lists.items():
            if len(set(values)) < len(values):
                raise ConfigError(f"--{name} is {values}: expected each value once.")
        for seed in self.seeds:
            check_seed("--seeds", seed)
        check_seed("--tuning_seed", self.tuning_seed)
        if self.tuning_seed in self.seeds:
            raise ConfigError(
                f"--tuning_seed {self.tuning_seed} is among --seeds too: the seeds compared "
                "must not have chosen the learning rate."
            )

    def tuning_arms(self, method: str) -> list[Arm]:
        """One arm per learning rate; none where there is no choice."""
        if len(self.rates) < 2:
            return []
        return [Arm("tune", method, rate, self.tuning_seed) for rate in self.rates]

    def arms(self, outcomes: Sequence[Outcome]) -> list[Arm]:
        """All arms known so far: a method's comparison comes after its own tuning."""
        arms = [arm for method in self.methods for arm in self.tuning_arms(method)]
        rates = {method: self._chosen_rate(method, outcomes) for method in self.methods}
        for seed in self.seeds:
            arms += [Arm("compare", m, rate, seed) for m, rate in rates.items() if rate is not None]
        return arms

    def _chosen_rate(self, method: str, outcomes: Sequence[Outcome]) -> float | None:
        """None while the tuning goes on or lacks a run, and where each of its runs has diverged."""
        if len(self.rates) == 1:
            return self.rates[0]
        known = {o.arm for o in outcomes if o.failure is None or o.diverged}
        if not known.issuperset(self.tuning_arms(method)):
            return None
        return report.best_rate(outcomes, method)


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
        """Makes the folder this study's, or checks that it is; methods, rates and seeds may differ.

        Raises:
            ExperimentError: a run of the plan would be refused, or the folder holds something else
                or is in use. Nothing is written then.
        """
        for method in plan.methods:
            arm = Arm("tune", method, plan.rates[0], plan.tuning_seed)
            config = load_config(default_config(), self.config_path, self.arm_overrides(arm))
            prepare(config, self.data_dir)
        base = load_config(default_config(), self.config_path, self.overrides)
        # Named otherwise than in a run, so that the folder of a run is never taken for a study's.
        open_workdir(self.folder, {"study_of": base.to_dict()}, resume=True)

    def arm_overrides(self, arm: Arm) -> list[str]:
        """`--set` values that turn the base configuration into that of the arm."""
        return [
            *self.overrides,
            f"method={arm.method}",
            f"optimizer.learning_rate={arm.learning_rate!r}",
            f"seed={arm.seed}",
        ]

    def finished(self, arm: Arm) -> Outcome | None:
        """The outcome of an arm whose results are on disk, else None.

        Raises WorkdirError if they are those of another configuration.
        """
        path = self.folder / "runs" / arm.name / "results.json"
        if not path.is_file():
            return None
        results = json.loads(path.read_text(encoding="utf-8"))
        config = load_config(default_config(), self.config_path, self.arm_overrides(arm))
        if results["config"] != json.loads(json.dumps(config.to_dict())):
            raise WorkdirError(
                f"{path} comes from another configuration than the one given: take another "
                "--workdir, or the --config and --set of the study that is there."
            )
        return Outcome(arm, results["valid_bpc"], results["test_bpc"])

    def start(self, arm: Arm) -> subprocess.Popen:
        """Starts the arm's process, or resumes it."""
        command = [sys.executable, "-m", "experiments.ptb", "--resume", "--noprogress_bar"]
        command += ["--workdir", str(self.folder / "runs" / arm.name), *self.run_arguments]
        command += ["--data_dir", self.data_dir] if self.data_dir else []
        command += ["--config", self.config_path] if self.config_path else []
        for override in self.arm_overrides(arm):
            command += ["--set", override]
        log_path = self.log_path(arm)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            # A session of its own: Ctrl-C comes to this process, which passes it on once.
            return subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def log_path(self, arm: Arm) -> pathlib.Path:
        """What the arm's process prints."""
        return self.folder / "logs" / f"{arm.name}.log"

    def write_report(self, plan: Plan, outcomes: Sequence[Outcome]) -> None:
        """Rewrites `table.md` and `results.json` from the outcomes so far."""
        rows = [outcome.as_row() for outcome in outcomes]
        write_atomically(self.folder / "results.json", json.dumps(rows, indent=2) + "\n")
        text = report.markdown(outcomes, plan.methods, plan.seeds, self._setting())
        write_atomically(self.folder / "table.md", text)

    def _setting(self) -> str:
        config: Any = load_config(default_config(), self.config_path, self.overrides)
        made_up = "made-up text (not Penn Treebank)"
        text = "Penn Treebank" if config.data.source == "ptb" else made_up
        options = config.optimizer.options.to_dict()
        with_options = f" with {options}" if options else ""
        return (
            f"{text}: {config.model.cell.upper()} with {config.model.hidden_size} units, batch "
            f"{config.batch}, {config.num_epochs} epochs, optimiser "
            f"{config.optimizer.name}{with_options}; mean length {config.mean_length} "
            f"(tbptt: truncation length), alpha {config.alpha:g}; "
            "parameters of the best epoch by validation."
        )


def run_study(study: Study, plan: Plan, *, jobs: int) -> list[Outcome]:
    """Runs what is missing, up to `jobs` processes at the same time.

    Arms that fail are reported in the table and do not stop the others; they are tried again by
    the next call.

    Raises:
        TrainingInterruptedError: Ctrl-C or SIGTERM; the running arms have saved a checkpoint.
        ExperimentError: see `Study.claim`.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs is {jobs}: expected 1 or more.")
    study.claim(plan)
    outcomes: list[Outcome] = []
    running: dict[Arm, subprocess.Popen] = {}
    with catch_interrupts() as interrupts:
        try:
            while True:
                outcomes += _collect(study, running)
                for arm in _missing(study, plan, outcomes, running)[: jobs - len(running)]:
                    print(f"start   {arm.name}", flush=True)
                    running[arm] = study.start(arm)
                study.write_report(plan, outcomes)
                if not running:
                    return outcomes
                _wait_for_one(running, interrupts)
        finally:
            # Interrupted or failed: the processes save a checkpoint and end.
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()


def _missing(
    study: Study, plan: Plan, outcomes: list[Outcome], running: dict[Arm, subprocess.Popen]
) -> list[Arm]:
    """The arms left to start. Outcomes found on disk are added to `outcomes` first."""
    while True:
        known = {outcome.arm for outcome in outcomes} | running.keys()
        missing = [arm for arm in plan.arms(outcomes) if arm not in known]
        found = [outcome for arm in missing if (outcome := study.finished(arm)) is not None]
        if not found:
            return missing
        outcomes += found  # once more: a tuning that is complete makes further arms known


def _collect(study: Study, running: dict[Arm, subprocess.Popen]) -> list[Outcome]:
    """Takes the processes that have ended out of `running`, and gives their outcomes."""
    ended = [arm for arm, process in running.items() if process.poll() is not None]
    return [_outcome(study, arm, running.pop(arm).returncode) for arm in ended]


def _outcome(study: Study, arm: Arm, exit_code: int) -> Outcome:
    outcome = study.finished(arm)
    if exit_code == 0 and outcome is not None:
        numbers = f"valid {outcome.valid_bpc:.4f}, test {outcome.test_bpc:.4f}"
        print(f"done    {arm.name}: {numbers}", flush=True)
        return outcome
    diverged = exit_code == TrainingDivergedError.exit_code
    what = "diverged" if diverged else f"exit code {exit_code}"
    failure = f"{what}, see logs/{arm.name}.log"
    print(f"failed  {arm.name}: {failure}", flush=True)
    return Outcome(arm, failure=failure)


def _wait_for_one(running: dict[Arm, subprocess.Popen], interrupts: Interrupts) -> None:
    while all(process.poll() is None for process in running.values()):
        if interrupts.signal_name:
            raise TrainingInterruptedError(
                f"{interrupts.signal_name}: the same command goes on with the study."
            )
        time.sleep(_POLL_SECONDS)


_METHODS = flags.DEFINE_list("methods", ["tbptt", "artbp"], "Methods to compare.")
_RATES = flags.DEFINE_list(
    "rates", ["1e-3", "2e-3", "4e-3", "8e-3", "1.6e-2", "3.2e-2"], "Learning rates to choose from."
)
_TUNING_SEED = flags.DEFINE_integer("tuning_seed", 0, "Seed of the runs that choose the rate.")
_SEEDS = flags.DEFINE_list("seeds", ["1", "2", "3"], "Seeds of the comparison.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Runs at the same time, as processes.")


def _main(_: Any, command_line: cli.CommandLine) -> None:
    try:
        rates, seeds = [float(r) for r in _RATES.value], [int(s) for s in _SEEDS.value]
    except ValueError as error:
        raise ConfigError(f"--rates and --seeds are lists of numbers: {error}.") from error
    plan = Plan(_METHODS.value, rates, _TUNING_SEED.value, seeds)
    passed_on = ["--tensorboard"] if command_line.tensorboard else []
    passed_on += [] if command_line.compilation_cache else ["--nocompilation_cache"]
    study = Study(
        command_line.workdir, flags.FLAGS.config, flags.FLAGS.set, DATA_DIR.value, passed_on
    )
    outcomes = run_study(study, plan, jobs=_JOBS.value)
    print((study.folder / "table.md").read_text(encoding="utf-8"))
    failed = [o.arm.name for o in outcomes if o.failure and not o.diverged]
    if failed:
        raise ExperimentError(f"Some runs failed: {', '.join(failed)}. See {study.folder}/logs.")


if __name__ == "__main__":
    flags.declare_key_flag(DATA_DIR.name)
    cli.run(_main, default_config(), notes=CLIPPING_HELP)
