"""python -m experiments.hyperparameters [--config FILE] [--set field=value] [--workdir DIR]."""

import jax
import ml_collections
from absl import flags

from experiments.common import cli, figures
from experiments.common.report import write_text_and_rows
from experiments.hyperparameters import figure, report, study
from experiments.hyperparameters.config import check_config, default_config


def main(config: ml_collections.FrozenConfigDict, command_line: cli.CommandLine) -> None:
    """Runs both parts on each problem; writes tables, numbers and figure, and prints the tables."""
    check_config(config)
    with cli.from_the_start(config, command_line) as (workdir, say):
        with jax.enable_x64(True):
            rows = study.run(config, say)
        figures.save(figure.draw(config, rows), workdir.path / "hyperparameters.png")
        table = report.tables(config, rows)
        write_text_and_rows(workdir.path, table + "\n", rows, indent=None)
        print(table)


if __name__ == "__main__":
    flags.FLAGS.set_default("workdir", "results/hyperparameters")
    cli.run(main, default_config())
