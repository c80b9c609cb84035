"""Compares arms on Penn Treebank: each is tuned for itself, then run on paired seeds.

    python -m experiments.ptb_study --config configs/ptb/small.py --workdir DIR --jobs 2

1. Each arm runs at each of its rates, with each of --tuning_seeds. The best mean validation bits
   choose its rate, among the rates that diverged on no seed.
2. Each arm runs at its rate, with each of --seeds. A seed fixes the initial parameters, which all
   arms share, and the boundaries, which arms of the same law share. The order of the data is fixed.
3. `table.md` and `results.json` (one object per run) in --workdir are rewritten after every run.
   At the end come `ptb_study.png` and `.svg`, and `limits.md`: what limits two of the models, and
   the effect of clipping on their gradients.

Every run is a process with its own folder in --workdir/runs and its log in --workdir/logs, or a job
with --executor slurm (see `experiments.common.slurm`). The same command again resumes what is
unfinished, with or without --resume.
"""

import pathlib
from typing import Any

from absl import flags

from experiments.common import cli, figures, slurm
from experiments.common.errors import ExperimentError
from experiments.common.optimizers import CLIPPING_HELP
from experiments.common.workdir import write_atomically
from experiments.ptb import command_line as ptb_flags
from experiments.ptb.config import default_config
from experiments.ptb.cost import cost
from experiments.ptb_study import command_line, limits, measured
from experiments.ptb_study.figure import draw
from experiments.ptb_study.report import diverged, run_of
from experiments.ptb_study.study import ARMS, Study, run_study
from experiments.report.folder import write_html

TUNING_SEEDS, SEEDS = (0, 100), (1, 2, 3, 4, 5)
REPORTED = ("tbptt50", "artbp-alpha4")  # arms whose first seed is reported in `limits.md`

_TUNING_SEEDS = flags.DEFINE_list(
    "tuning_seeds", [str(seed) for seed in TUNING_SEEDS], "Seeds that choose the rate of each arm."
)


def _study(given_flags: cli.CommandLine, data_dir: str | None) -> tuple[Study, int]:
    """The study that the flags describe, and the number of jobs."""
    arms, seeds, jobs = command_line.read(ARMS, SEEDS)
    tuning_seeds = command_line.numbers(_TUNING_SEEDS, int)
    given = given_flags.workdir, flags.FLAGS.config, flags.FLAGS.set, data_dir
    return Study(arms, tuning_seeds, seeds, *given, given_flags.for_runs()), jobs


def _cost(config: Any) -> list[str]:
    arms, seeds, _ = command_line.read(ARMS, SEEDS)
    study = Study(arms, command_line.numbers(_TUNING_SEEDS, int), seeds, pathlib.Path())
    return [study.describe_runs(), *cost(config)]


def _main(config: Any, given_flags: cli.CommandLine) -> None:
    study, jobs = _study(given_flags, ptb_flags.data_dir(config))
    rows = run_study(study, jobs=jobs, make_pool=slurm.make_pool)
    first_arm = next(iter(study.arms))
    found = measured.measurements(study.folder, rows, [first_arm]).get(first_arm, [])
    references = {name: arm.reference for name, arm in study.arms.items()}
    figures.save(draw(references, rows, found, seeds=study.seeds), study.folder / "ptb_study.png")
    reported = {
        run.name: limits.trained(study.folder / "runs" / run.name, study.data_dir)
        for run in [run_of(row) for row in rows if not row["failure"]]
        if run.purpose == "compare" and run.arm in REPORTED and run.seed == study.seeds[0]
    }
    write_atomically(study.folder / "limits.md", limits.markdown(reported))
    write_html(study.folder)
    print((study.folder / "table.md").read_text(encoding="utf-8"))
    failed = [run_of(row).name for row in rows if row["failure"] and not diverged(row)]
    if failed:
        raise ExperimentError(f"Some runs failed: {', '.join(failed)}. See {study.folder}/logs.")


def start() -> None:
    """Parses the flags and runs; exits with an error code."""
    for flag in (*ptb_flags.FLAGS, _TUNING_SEEDS, *command_line.FLAGS):
        flags.declare_key_flag(flag.name)
    own = {"experiment": "ptb_study", "cost": _cost, "needs": ptb_flags.NEEDS}
    cli.run(_main, default_config(), CLIPPING_HELP, **own)


if __name__ == "__main__":
    start()
