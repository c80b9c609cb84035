"""The comparison: learning rates tuned per arm, then paired seeds, a table with intervals.

    python -m experiments.ptb_study --config configs/ptb/small.py --workdir DIR --jobs 2

1. Each arm runs at each of its rates, with each of --tuning_seeds. The best mean validation bits
   choose its rate, among the rates that diverged on no seed.
2. Each arm runs at its rate, with each of --seeds. A seed fixes the initial parameters, which all
   arms share, and the boundaries, which arms of the same law share. The order of the data is fixed.
3. `table.md` and `results.json` (one object per run) in --workdir are rewritten after every run.
   At the end come `ptb_study.png` and `.svg`, and `limits.md`: what limits two of the models, and
   the effect of clipping on their gradients.

Every run is a process with its own folder in --workdir/runs and its log in --workdir/logs. The same
command again resumes what is unfinished, with or without --resume.
"""

from typing import Any

from absl import flags

from experiments.common import cli, figures
from experiments.common.errors import ExperimentError
from experiments.common.optimizers import CLIPPING_HELP
from experiments.common.workdir import write_atomically
from experiments.ptb.config import default_config
from experiments.ptb.run import DATA_DIR
from experiments.ptb_study import command_line, limits, measured
from experiments.ptb_study.figure import draw
from experiments.ptb_study.report import diverged, run_of
from experiments.ptb_study.study import ARMS, Study, run_study

TUNING_SEEDS, SEEDS = (0, 100), (1, 2, 3, 4, 5)
REPORTED = ("tbptt50", "artbp-alpha4")  # arms whose first seed is reported in `limits.md`

_TUNING_SEEDS = flags.DEFINE_list(
    "tuning_seeds", [str(seed) for seed in TUNING_SEEDS], "Seeds that choose the rate of each arm."
)


def _main(_: Any, given_flags: cli.CommandLine) -> None:
    arms, seeds, jobs = command_line.read(ARMS, SEEDS)
    tuning_seeds = command_line.numbers(_TUNING_SEEDS, int)
    passed_on = ["--tensorboard"] if given_flags.tensorboard else []
    passed_on += [] if given_flags.compilation_cache else ["--nocompilation_cache"]
    given = given_flags.workdir, flags.FLAGS.config, flags.FLAGS.set, DATA_DIR.value, passed_on
    study = Study(arms, tuning_seeds, seeds, *given)
    rows = run_study(study, jobs=jobs)
    first_arm = next(iter(study.arms))
    found = measured.measurements(study.folder, rows, [first_arm]).get(first_arm, [])
    references = {name: arm.reference for name, arm in study.arms.items()}
    figures.save(draw(references, rows, found, seeds=seeds), study.folder / "ptb_study.png")
    reported = {
        run.name: limits.trained(study.folder / "runs" / run.name, DATA_DIR.value)
        for run in [run_of(row) for row in rows if not row["failure"]]
        if run.purpose == "compare" and run.arm in REPORTED and run.seed == seeds[0]
    }
    write_atomically(study.folder / "limits.md", limits.markdown(reported))
    print((study.folder / "table.md").read_text(encoding="utf-8"))
    failed = [run_of(row).name for row in rows if row["failure"] and not diverged(row)]
    if failed:
        raise ExperimentError(f"Some runs failed: {', '.join(failed)}. See {study.folder}/logs.")


if __name__ == "__main__":
    for flag in (DATA_DIR, _TUNING_SEEDS, *command_line.FLAGS):
        flags.declare_key_flag(flag.name)
    cli.run(_main, default_config(), notes=CLIPPING_HELP)
