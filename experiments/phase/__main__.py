"""python -m experiments.phase [--config FILE] [--set field=value] [--workdir DIR]."""

import ml_collections
from absl import flags

from experiments.common import cli
from experiments.common.figures import save
from experiments.common.report import write_results
from experiments.phase import figure, report, study
from experiments.phase.config import check_config, default_config
from experiments.phase.estimators import contenders


def main(config: ml_collections.FrozenConfigDict, command_line: cli.CommandLine) -> None:
    """Predicts, trains, and writes the table, the figure and the numbers."""
    check_config(config)
    with cli.from_the_start(config, command_line) as (workdir, say):
        everyone = contenders(config.mean_length, config.alpha)
        predicted = study.predict_map(config, everyone)
        say("map predicted")
        points = study.train_points(config, everyone, say)
        save(figure.draw(config, everyone, predicted, points), workdir.path / "phase.png")
        rows = report.table_rows(everyone, points)
        print(write_results(workdir.path, rows, report.COLUMNS, report.note(config, points)))


if __name__ == "__main__":
    flags.FLAGS.set_default("workdir", "results/phase")
    cli.run(main, default_config())
