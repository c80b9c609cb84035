"""python -m experiments.influence_balancing [--config FILE] [--set field=value] [--workdir DIR]."""

import ml_collections
from absl import flags

from experiments.common import cli
from experiments.influence_balancing import curves, rates, settling
from experiments.influence_balancing.config import check_config, default_config

_STUDIES = {"curves": curves.run, "rates": rates.run, "settling": settling.run}


def main(config: ml_collections.FrozenConfigDict, command_line: cli.CommandLine) -> None:
    """Runs the study that `config` names, and prints its table."""
    check_config(config)
    with cli.from_the_start(config, command_line) as (workdir, say):
        print(_STUDIES[str(config.study)](config, workdir, say))


if __name__ == "__main__":
    flags.FLAGS.set_default("workdir", "results/influence_balancing")
    cli.run(main, default_config())
