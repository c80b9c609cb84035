"""python -m experiments.memory [--config FILE] [--set field=value] --workdir DIR."""

import time

import ml_collections
from absl import flags

from experiments.common import cli, figures, tables
from experiments.common.metrics import MetricsWriter
from experiments.common.workdir import open_workdir
from experiments.memory import report
from experiments.memory.config import arms, check_config, default_config
from experiments.memory.figures import make_figure
from experiments.memory.training import train_all


def main(config: ml_collections.FrozenConfigDict, command_line: cli.CommandLine) -> None:
    """Trains and tests every arm; writes memory.png and .svg, table.md, results.json, metrics."""
    check_config(config)
    cli.refuse_tensorboard(command_line)
    # A run takes minutes and has no checkpoint: the same configuration runs again from the start.
    workdir = open_workdir(command_line.workdir, config, resume=True)
    started = time.perf_counter()
    results = train_all(config, arms(config), cli.say_on_stderr(command_line))
    rows = report.make_rows(config, results)
    with MetricsWriter(workdir.metrics_path) as writer:
        for row in rows:
            writer.write({"kind": "result", **row})
    figures.save(make_figure(config, rows), workdir.path / "memory.png")
    columns = report.columns(config, "every_lag")
    print(tables.write_results(workdir.path, rows, columns, report.notes(config, rows)))
    print(f"{time.perf_counter() - started:.0f} s in all. Everything is in {workdir.path}")


if __name__ == "__main__":
    flags.FLAGS.set_default("workdir", "results/memory")
    cli.run(main, default_config())
