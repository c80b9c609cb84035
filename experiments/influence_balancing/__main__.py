"""python -m experiments.influence_balancing [--config FILE] [--set field=value] [--workdir DIR]."""

import time

import ml_collections
from absl import flags

from experiments.common import cli
from experiments.common.workdir import open_workdir
from experiments.influence_balancing import curves, rates, settling
from experiments.influence_balancing.config import check_config, default_config

_STUDIES = {"curves": curves.run, "rates": rates.run, "settling": settling.run}


def main(config: ml_collections.FrozenConfigDict, command_line: cli.CommandLine) -> None:
    """Runs the study that `config` names, and prints its table."""
    check_config(config)
    cli.refuse_tensorboard(command_line)
    # A run takes minutes and has no checkpoint: the same configuration runs again from the start,
    # and gives the same files.
    workdir = open_workdir(command_line.workdir, config, resume=True)
    started = time.perf_counter()
    print(_STUDIES[str(config.study)](config, workdir, cli.say_on_stderr(command_line)))
    seconds = time.perf_counter() - started
    print(f"{seconds:.0f} s in all. Figure, table and numbers: {workdir.path}")


if __name__ == "__main__":
    flags.FLAGS.set_default("workdir", "results/influence_balancing")
    cli.run(main, default_config())
