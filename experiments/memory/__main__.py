"""python -m experiments.memory [--config FILE] [--set field=value] --workdir DIR."""

import ml_collections
from absl import flags

from experiments.common import cli, figures
from experiments.common import report as tables
from experiments.common.metrics import MetricsWriter
from experiments.memory import report
from experiments.memory.config import arms, check_config, default_config
from experiments.memory.figures import make_figure
from experiments.memory.training import train_all


def main(config: ml_collections.FrozenConfigDict, command_line: cli.CommandLine) -> None:
    """Trains and tests every arm; writes memory.png and .svg, table.md, results.json, metrics."""
    check_config(config)
    with cli.from_the_start(config, command_line) as (workdir, say):
        results = train_all(config, arms(config), say)
        rows = report.make_rows(config, results)
        with MetricsWriter(workdir.metrics_path) as writer:
            for row in rows:
                writer.write({"kind": "result", **row})
        figures.save(make_figure(config, rows), workdir.path / "memory.png")
        columns = report.columns(config, "every_lag")
        print(tables.write_results(workdir.path, rows, columns, report.notes(config, rows)))


if __name__ == "__main__":
    flags.FLAGS.set_default("workdir", "results/memory")
    cli.run(main, default_config())
