"""python -m experiments.stability [--config FILE] [--set field=value] [--workdir DIR]."""

import time

import jax
import ml_collections
from absl import flags

from experiments.common import cli, figures
from experiments.common.metrics import MetricsWriter
from experiments.common.workdir import open_workdir
from experiments.stability import bound, clipping, figure, norms, report, training
from experiments.stability.config import check_config, default_config


def main(config: ml_collections.FrozenConfigDict, command_line: cli.CommandLine) -> None:
    """Runs the four parts, writes tables, numbers and figure, and prints the tables."""
    check_config(config)
    cli.refuse_tensorboard(command_line)
    # No checkpoint: the same configuration runs again from the start, and gives the same files.
    workdir = open_workdir(command_line.workdir, config, resume=True)
    started = time.perf_counter()
    say = cli.say_on_stderr(command_line)
    with jax.enable_x64(True):
        rows = norms.run(config)
        say("(i) gradient norms: done")
        rows += training.run(config, say)
        say("(ii) trainings: done")
        bound_rows, steps = bound.run(config)
        rows += bound_rows
        say("(iii) clipped steps: done")
        rows += clipping.bias(config)
        say("(iv) bias of clipped gradients: done")
    with MetricsWriter(workdir.metrics_path) as writer:
        for row in rows:
            writer.write({"kind": row["part"], **row})
    figures.save(figure.draw(config, rows, steps), workdir.path / "stability.png")
    print(report.write(workdir.path, config, rows))
    seconds = time.perf_counter() - started
    print(f"{seconds:.0f} s in all. Figure, tables and numbers: {workdir.path}")


if __name__ == "__main__":
    flags.FLAGS.set_default("workdir", "results/stability")
    cli.run(main, default_config())
