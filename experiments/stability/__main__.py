"""python -m experiments.stability [--config FILE] [--set field=value] [--workdir DIR]."""

import jax
import ml_collections
from absl import flags

from experiments.common import cli, figures
from experiments.common.metrics import MetricsWriter
from experiments.stability import bound, clipping, figure, norms, report, training
from experiments.stability.config import check_config, default_config


def main(config: ml_collections.FrozenConfigDict, command_line: cli.CommandLine) -> None:
    """Runs the four parts, writes tables, numbers and figure, and prints the tables."""
    check_config(config)
    with cli.from_the_start(config, command_line) as (workdir, say):
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


if __name__ == "__main__":
    flags.FLAGS.set_default("workdir", "results/stability")
    cli.run(main, default_config())
