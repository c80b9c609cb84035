"""The runs of a sweep as processes or Slurm jobs: which are left, and what became of the others."""

import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from experiments.common.errors import ConfigError, WorkdirError, one_line
from experiments.common.pool import Pool, run_jobs
from experiments.common.workdir import (
    Workdir,
    as_json,
    config_text,
    open_workdir,
    refuse_other_run,
    write_atomically,
)
from experiments.sweep import results
from experiments.sweep.plan import Run, checked_config, runs_of
from experiments.sweep.results import Outcome


class Sweep:
    """A sweep in its folder.

    Args:
        config: what `plan.runs_of` reads.
        folder: of the sweep. It may hold an earlier sweep with other runs, which stay there.
        arguments: further flags of each run, such as --nocompilation_cache.

    Raises ConfigError where a run would be refused, WorkdirError where a folder holds another one.
    """

    def __init__(self, config: Any, folder: Path, arguments: Sequence[str] = ()) -> None:
        self.folder = folder
        self.runs = runs_of(config)
        self._config = as_json(config)
        self._arguments = arguments
        self._failures: dict[Run, str] = {}
        self._results: dict[Run, Any] = {}
        self._configs = {run: as_json(checked_config(run)) for run in self.runs}
        for run in self.runs:
            self._refuse_other(run)

    def _refuse_other(self, run: Run) -> None:
        """Raises WorkdirError where the folder of the run holds another one."""
        workdir = Workdir(self.run_folder(run))
        if workdir.config_path.exists():
            refuse_other_run(workdir, self._configs[run])

    def claim(self) -> None:
        """Makes the folder this sweep's; WorkdirError where it holds anything but a sweep."""
        workdir = Workdir(self.folder)
        there = workdir.read_config() if workdir.config_path.is_file() else {}
        is_sweep = there.keys() == self._config.keys()
        open_workdir(self.folder, there if is_sweep else self._config, resume=True)
        write_atomically(workdir.config_path, config_text(self._config))

    def run_folder(self, run: Run) -> Path:
        """Returns the --workdir of a run."""
        return self.folder / "runs" / run.name

    def command(self, run: Run) -> list[str]:
        """Returns what starts a run in a process of its own, or resumes it."""
        return [*run.command(self.run_folder(run)), *self._arguments]

    def run_missing(self, pool: Pool) -> None:
        """Runs what has not finished, and writes the results after every run.

        A run that fails does not stop the others; the next call tries it again.
        TrainingInterruptedError on Ctrl-C or SIGTERM.
        """
        self.claim()
        try:
            run_jobs(
                pool,
                self.folder / "logs",
                missing=self._missing,
                command=self.command,
                ended=self._end,
                report=self._write,
            )
        finally:  # No run goes on after an error or Ctrl-C.
            self._write(frozenset())

    def outcomes(self, running: Set[Run] = frozenset()) -> Mapping[Run, Outcome]:
        """Returns what is known of each run."""
        return {run: self._outcome(run, running) for run in self.runs}

    def _outcome(self, run: Run, running: Set[Run]) -> Outcome:
        found = self._read_results(run)
        if run in self._failures:  # also where it failed after it had written its results
            return Outcome("failed", self._failures[run])
        if found is not None:
            return Outcome("finished", results=found)
        return Outcome("running" if run in running else "not finished")

    def _read_results(self, run: Run) -> Any:
        """The results.json of a run, which it writes last; None if there is none.

        Its configuration file may have changed since the sweep began: that is a failure.
        """
        path = self.run_folder(run) / "results.json"
        if run not in self._results and run not in self._failures and path.is_file():
            try:
                self._refuse_other(run)
            except WorkdirError as error:
                self._failures[run] = one_line(error)
            else:
                self._results[run] = json.loads(path.read_text(encoding="utf-8"))
        return self._results.get(run)

    def _missing(self, running: Set[Run]) -> list[Run]:
        outcomes = self.outcomes(running)
        return [run for run, outcome in outcomes.items() if outcome.state == "not finished"]

    def _end(self, run: Run, exit_code: int) -> None:
        if exit_code == 0 and self._read_results(run) is not None:
            print(f"done    {run.name}", flush=True)
            return
        if run not in self._failures:
            log = self.folder / "logs" / f"{run.name}.log"
            self._failures[run] = results.failure(exit_code, log)
        print(f"failed  {run.name}: {self._failures[run]}", flush=True)

    def _write(self, running: Set[Run]) -> None:
        results.write(self.folder, self.outcomes(running))


def check_tensorboard(runs: Sequence[Run]) -> None:
    """Raises ConfigError for a run that writes no TensorBoard events."""
    for run in runs:
        if run.experiment != "ptb":
            raise ConfigError(
                f"--tensorboard was given, but run {run.name} writes no TensorBoard events: "
                "only experiments.ptb does. Leave it out."
            )
