"""Runs many configurations of any experiments, and puts their results into one table.

    python -m experiments.sweep --config configs/sweep/default.py --workdir DIR --jobs 2

A configuration file lists the runs:

    def get_config():
        return {
            "experiment": "ptb",
            "config": "configs/ptb/small.py",
            "set": {"num_epochs": 1},
            "grid": {"seed": (0, 1, 2)},
            "runs": {
                "tbptt": {"set": {"arm": "tbptt(50)", "optimizer.learning_rate": 1.6e-2}},
                "artbp": {"set": {"arm": "artbp(50, alpha=4)"}},
            },
        }

Each of `runs` is run at every combination of the values in `grid`: here 2 x 3 runs, with names such
as tbptt-seed=0. Both may be left out. A run takes `experiment` and `config` from the top where it
has none of its own, and all runs have the values of `set`. Without a file:

    python -m experiments.sweep --workdir DIR --jobs 2 --set experiment=influence_balancing \\
        --set 'grid.eta_0=(3e-4, 1e-3)' --set set.num_steps=10000

All configurations are checked before the first run starts. Each is a process `python -m
experiments.NAME` with its own folder in --workdir/runs and its log in --workdir/logs, or a job with
--executor slurm (see `experiments.common.slurm`). After every run, `table.md` (what differs between
the runs, and what came of each) and `rows.jsonl` (the rows of all results, as JSON) are written
again. A failed run is a row that says so. The same command again runs only what has not finished.
The configuration may then list more runs.
"""

import shlex
from pathlib import Path
from typing import Any

import jax
from absl import flags

from experiments.common import cli, fields, slurm
from experiments.common.errors import ExperimentError
from experiments.report.folder import write_html
from experiments.sweep.plan import FIELDS, checked_config, experiments, runs_of
from experiments.sweep.running import Sweep, check_tensorboard

_NEEDS = f"""\
Or, without a file: --set experiment=NAME --set 'grid.seed=(0, 1, 2)', where NAME is one of
{", ".join(experiments())}.
--help shows what a file holds."""


def _cost(config: Any) -> list[str]:
    runs = runs_of(config)
    for run in runs:
        checked_config(run)
    commands = [
        shlex.join(["python", *run.command(Path("DIR", "runs", run.name))[1:]]) for run in runs
    ]
    return [f"Runs: {len(runs)}. Each is a process of its own:", *commands]


def _main(config: Any, given_flags: cli.CommandLine) -> None:
    sweep = Sweep(config, given_flags.workdir, given_flags.for_runs())
    if given_flags.tensorboard:
        check_tensorboard(sweep.runs)
    sweep.run_missing(slurm.make_pool(slurm.JOBS.value, sweep.folder / "slurm"))
    write_html(sweep.folder)
    print((sweep.folder / "table.md").read_text(encoding="utf-8"))
    outcomes = sweep.outcomes()
    if failed := [run.name for run, outcome in outcomes.items() if outcome.failure]:
        raise ExperimentError(f"Some runs failed: {', '.join(failed)}. See {sweep.folder}/logs.")


def start() -> None:
    """Parses the flags and runs; exits with an error code."""
    for flag in slurm.FLAGS:
        flags.declare_key_flag(flag.name)
    cli.run(
        _main,
        fields.default_config(FIELDS),
        field_lines=fields.describe(FIELDS),
        experiment="sweep",
        cost=_cost,
        needs=_NEEDS,
    )


if __name__ == "__main__":
    # Nothing is computed here: a GPU is left to the runs.
    jax.config.update("jax_platforms", "cpu")
    start()
