"""The runs, their table and figures.

    python -m experiments.ptb_authors --config configs/ptb/authors.py --set model.hidden_size=256
        --workdir DIR --jobs 2

1. Each arm whose rate is tuned runs at each of its rates with each of --tuning_seeds.
2. Each arm runs with each of --seeds: at the rate chosen, or at that of the authors.
3. After every run `rows.jsonl` (a line per run) and `table.md` are written again; at the end also a
   figure for each setting.

Every run is a process with its own folder in --workdir/runs. The same command again resumes what is
unfinished. --arms says which arms are run, and in which order; --jobs 0 runs nothing and writes the
report of what is there.
"""

import json
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.common import cli, fields, figures
from experiments.common.errors import ConfigError
from experiments.common.report import Row
from experiments.common.workdir import write_atomically
from experiments.ptb.config import default_config
from experiments.ptb.run import DATA_DIR
from experiments.ptb_authors import report, rows
from experiments.ptb_authors.arms import ARMS
from experiments.ptb_authors.figure import draw
from experiments.ptb_study.study import Study, finished_rows, run_study

_ARMS = flags.DEFINE_list("arms", list(ARMS), "Arms to run, of those in arms.py.")
_TUNING_SEEDS = flags.DEFINE_list("tuning_seeds", ["0"], "Seeds that choose the rate.")
_SEEDS = flags.DEFINE_list("seeds", ["1", "2"], "Seeds of the comparison.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Runs at the same time, as processes.")


def _main(_: Any, command_line: cli.CommandLine) -> None:
    fields.one_of(*ARMS)("--arms", tuple(_ARMS.value))
    try:
        seeds = [[int(seed) for seed in flag.value] for flag in (_TUNING_SEEDS, _SEEDS)]
    except ValueError as error:
        raise ConfigError(f"--seeds and --tuning_seeds hold numbers: {error}.") from error
    arms = {name: ARMS[name] for name in _ARMS.value}
    study = Study(
        arms,
        *seeds,
        folder=command_line.workdir,
        config_path=flags.FLAGS.config,
        overrides=flags.FLAGS.set,
        data_dir=DATA_DIR.value,
    )

    def write(finished: Sequence[Row]) -> None:
        found = rows.collect(study, study.runs(finished))
        lines = "".join(json.dumps(row) + "\n" for row in found)
        write_atomically(study.folder / "rows.jsonl", lines)
        write_atomically(study.folder / "table.md", report.markdown(found, _description(study)))

    if _JOBS.value == 0:
        write(finished_rows(study))
    else:
        run_study(study, jobs=_JOBS.value, write_report=write)
    lines = (study.folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    for where in {report.setting(row) for row in found}:
        name = "curves-" + where.replace(",", "").replace(" ", "-")
        figure = draw(found, where, f"{_description(study)} {where[0].upper()}{where[1:]}.")
        figures.save(figure, study.folder / f"{name}.png")
    print((study.folder / "table.md").read_text(encoding="utf-8"))


def _description(study: Study) -> str:
    config = study.config()
    text = "Penn Treebank" if config.data.source == "ptb" else "made-up text"
    spaces = "with" if config.data.keep_line_spaces else "without"
    return (
        f"{text}, {spaces} the spaces at line ends; {config.model.cell} with "
        f"{config.model.hidden_size} units, batch {config.batch}, {config.num_epochs} epochs, Adam."
    )


if __name__ == "__main__":
    flags.declare_key_flag(DATA_DIR.name)
    cli.run(_main, default_config())
