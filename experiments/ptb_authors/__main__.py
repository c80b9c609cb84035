"""Trains on Penn Treebank as the paper's authors did, and says what their gain is made of.

    python -m experiments.ptb_authors --config configs/ptb/authors.py --set model.hidden_size=256
        --workdir DIR --jobs 2

Every arm runs at each of --rates with each of --seeds. A seed fixes the initial parameters, which
all arms share, and the boundaries, which arms of the same law share. After every run `rows.jsonl`
(a line per run) and `table.md` are written again; at the end also a figure for each rate, and one
with each arm at its better rate.

Every run is a process with its own folder in --workdir/runs, or a job with --executor slurm (see
`experiments.common.slurm`). The same command again resumes what is unfinished. --arms says which
arms are run, and in which order; --jobs 0 runs nothing and writes the report of what is there, and
with --score_unfinished scores the runs that are not finished, too, with their best params so far.
--rows names the `rows.jsonl` of other folders, such as one from another machine: their runs join
the report. Runs of another training than this study's are refused.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.common import cli, figures, slurm
from experiments.common.errors import ConfigError, WorkdirError
from experiments.common.report import Row
from experiments.common.workdir import write_atomically
from experiments.ptb import command_line as ptb_flags
from experiments.ptb.config import default_config
from experiments.ptb.cost import cost
from experiments.ptb_authors import report, rows
from experiments.ptb_authors.arms import ARMS
from experiments.ptb_authors.figure import draw
from experiments.ptb_study import command_line
from experiments.ptb_study.report import run_of
from experiments.ptb_study.study import Study, finished_rows, run_study
from experiments.report.folder import write_html

SEEDS = (0, 1)
_ROWS = flags.DEFINE_list("rows", [], "rows.jsonl of other folders, whose runs join the report.")
_SCORE_UNFINISHED = flags.DEFINE_boolean(
    "score_unfinished", False, "With --jobs 0: score unfinished runs, too, by their best params."
)


def check(config: Any) -> None:
    """Raises ConfigError for a configuration that this study does not run with."""
    if config.shadow.every:
        raise ConfigError(
            f"shadow.every is {config.shadow.every}: experiments.ptb_authors does not measure its "
            "runs, so expected 0. Leave the field out, or measure one run with experiments.ptb."
        )


def _read_flags() -> command_line.Chosen:
    chosen = command_line.read(ARMS, SEEDS)
    if _SCORE_UNFINISHED.value and chosen.jobs != 0:
        raise ConfigError(
            f"--score_unfinished with --jobs {chosen.jobs}: expected --jobs 0, which runs nothing. "
            "Stop the runs first, or leave the flag out."
        )
    return chosen


def _cost(config: Any) -> list[str]:
    check(config)
    arms, seeds, _ = _read_flags()
    study = Study(arms, tuning_seeds=seeds, seeds=(), folder=pathlib.Path())
    return [study.describe_runs(), *cost(config)]


def _main(config: Any, given_flags: cli.CommandLine) -> None:
    check(config)
    arms, seeds, jobs = _read_flags()
    study = Study(
        arms,
        tuning_seeds=seeds,  # every rate with every seed, and no comparison after it
        seeds=(),
        folder=given_flags.workdir,
        config_path=flags.FLAGS.config,
        overrides=flags.FLAGS.set,
        data_dir=ptb_flags.data_dir(config),
        run_arguments=given_flags.for_runs(),
    )

    others = rows.read(_ROWS.value, config)

    def write(finished: Sequence[Row]) -> None:
        found = rows.collect(study, study.runs(finished), score_unfinished=_SCORE_UNFINISHED.value)
        found = rows.joined(found, others)
        lines = "".join(json.dumps(row) + "\n" for row in found)
        write_atomically(study.folder / "rows.jsonl", lines)
        failed = [f"{run_of(row).name}: {row['failure']}" for row in finished if row["failure"]]
        text = report.markdown(found, _description(study), failed)
        write_atomically(study.folder / "table.md", text)

    if jobs == 0:
        if not study.folder.is_dir():
            raise WorkdirError(
                f"{study.folder} does not exist: --jobs 0 reports a study that was run before."
            )
        write(finished_rows(study))
    else:
        run_study(study, jobs=jobs, make_pool=slurm.make_pool, write_report=write)
    lines = (study.folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    for setting, compared in report.settings(found).items():
        figure = draw(compared, f"{_description(study)} {setting}.")
        figures.save(figure, study.folder / f"curves-{setting.lower().replace(' ', '-')}.png")
    write_html(study.folder)
    print((study.folder / "table.md").read_text(encoding="utf-8"))


def _description(study: Study) -> str:
    config = study.config()
    text = "Penn Treebank" if config.data.source == "ptb" else "made-up text"
    spaces = "with" if config.data.keep_line_spaces else "without"
    return (
        f"{text}, {spaces} the spaces at line ends; {config.model.cell} with "
        f"{config.model.hidden_size} units, batch {config.batch}, {config.num_epochs} epochs, "
        f"optimiser {config.optimizer.name}."
    )


def start() -> None:
    """Parses the flags and runs; exits with an error code."""
    for flag in (*ptb_flags.FLAGS, *command_line.FLAGS, _ROWS, _SCORE_UNFINISHED):
        flags.declare_key_flag(flag.name)
    own = {"experiment": "ptb_authors", "cost": _cost, "needs": ptb_flags.NEEDS}
    cli.run(_main, default_config(), **own)


if __name__ == "__main__":
    start()
