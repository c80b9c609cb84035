"""python -m experiments.teacher_forcing [--config FILE] [--set field=value] [--workdir DIR]."""

import ml_collections
from absl import flags

from experiments.common import cli, figures
from experiments.common import report as tables
from experiments.common.metrics import MetricsWriter
from experiments.teacher_forcing import figure, report, study
from experiments.teacher_forcing.config import check_config, default_config


def main(config: ml_collections.FrozenConfigDict, command_line: cli.CommandLine) -> None:
    """Runs the study, writes table, numbers and figure, and prints the table."""
    check_config(config)
    with cli.from_the_start(config, command_line) as (workdir, say):
        results, baselines = study.run_arms(config, say)
        with MetricsWriter(workdir.metrics_path) as writer:
            report.write_curves(writer, results, baselines)
        drawn = figure.error_figure(
            results,
            baselines,
            num_seeds=config.num_seeds,
            title="Forecast error against horizon: fed the truth in training, or its own forecasts",
        )
        figures.save(drawn, workdir.path / "errors.png")
        rows = report.rows_of(config, results, baselines)
        print(tables.write_results(workdir.path, rows, report.columns(config), report.note(config)))


if __name__ == "__main__":
    flags.FLAGS.set_default("workdir", "results/teacher_forcing")
    cli.run(main, default_config())
