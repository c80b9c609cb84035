"""The comparison: learning rates tuned per arm, then paired seeds, a table with intervals.

    python -m experiments.ptb_study --config configs/ptb/small.py --workdir DIR --jobs 2

1. Each arm at each of its rates, with each of --tuning_seeds: the best mean validation bits choose
   its rate, among those that diverged on none.
2. Each arm at its rate, with each of --seeds. A seed fixes the initial parameters and the cuts.
   The initial parameters are common to the arms, and the cuts to those that draw from the same law;
   the order of the data never changes.
3. `table.md` and `results.json` (one object per run) in --workdir, rewritten after every run; at
   the end `ptb_study.png` and `.svg`, and `limits.md`: what limits a model of each of two arms, and
   what clipping would do to its gradients.

Every run is a process of its own with its own folder in --workdir/runs and its log in
--workdir/logs. The same command again goes on where it was: finished runs are kept, others resumed,
with or without --resume.
"""

from typing import Any

from absl import flags

from experiments.common import cli
from experiments.common.errors import ConfigError, ExperimentError
from experiments.common.figures import save
from experiments.common.optimizers import CLIPPING_HELP
from experiments.common.workdir import write_atomically
from experiments.ptb.config import default_config
from experiments.ptb.run import DATA_DIR
from experiments.ptb_study import clipped, limits, watched
from experiments.ptb_study.arms import ARMS
from experiments.ptb_study.figure import draw
from experiments.ptb_study.study import Plan, Study, chosen_arms, run_study

# Whose first seed is looked at in `limits.md`.
REPORTED = ("tbptt50", "artbp-alpha4")

_ARMS = flags.DEFINE_list("arms", list(ARMS), "Arms to compare, of those in arms.py.")
_RATES = flags.DEFINE_list(
    "rates", [], "Learning rates to choose from, for every arm. Default: those of the arm."
)
_TUNING_SEEDS = flags.DEFINE_list("tuning_seeds", ["0", "100"], "Seeds that choose the rate.")
_SEEDS = flags.DEFINE_list("seeds", ["1", "2", "3", "4", "5"], "Seeds of the comparison.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Runs at the same time, as processes.")


def _main(_: Any, command_line: cli.CommandLine) -> None:
    try:
        rates = [float(rate) for rate in _RATES.value]
        seeds, tuning_seeds = ([int(s) for s in f.value] for f in (_SEEDS, _TUNING_SEEDS))
    except ValueError as error:
        raise ConfigError(f"--rates, --seeds, --tuning_seeds hold numbers: {error}.") from error
    plan = Plan(chosen_arms(_ARMS.value, rates), tuning_seeds, seeds)
    passed_on = ["--tensorboard"] if command_line.tensorboard else []
    passed_on += [] if command_line.compilation_cache else ["--nocompilation_cache"]
    study = Study(
        command_line.workdir, flags.FLAGS.config, flags.FLAGS.set, DATA_DIR.value, passed_on
    )
    outcomes = run_study(study, plan, jobs=_JOBS.value)
    found = watched.measurements(study.folder, outcomes, list(plan.arms))
    figure = draw(plan.arms, outcomes, found, seeds=plan.seeds, watched_arm=next(iter(plan.arms)))
    save(figure, study.folder / "ptb_study.png")
    reports, clippings = {}, {}
    for run in [o.run for o in outcomes if o.failure is None and o.run.purpose == "compare"]:
        if run.arm in REPORTED and run.seed == plan.seeds[0]:
            folder = study.folder / "runs" / run.name
            report = limits.report_of_run(folder, DATA_DIR.value)
            reports |= {run.name: report} if report is not None else {}
            clipping = clipped.clipping_of_run(folder, DATA_DIR.value)
            clippings |= {run.name: clipping} if clipping is not None else {}
    text = limits.markdown(reports) + clipped.markdown(clippings)
    write_atomically(study.folder / "limits.md", text)
    print((study.folder / "table.md").read_text(encoding="utf-8"))
    failed = [o.run.name for o in outcomes if o.failure and not o.diverged]
    if failed:
        raise ExperimentError(f"Some runs failed: {', '.join(failed)}. See {study.folder}/logs.")


if __name__ == "__main__":
    flags.declare_key_flag(DATA_DIR.name)
    cli.run(_main, default_config(), notes=CLIPPING_HELP)
