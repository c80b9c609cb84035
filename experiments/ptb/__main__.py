"""`python -m experiments.ptb --config configs/ptb/small.py --workdir DIR`: one run."""

from typing import Any

from absl import flags

from experiments.common import cli
from experiments.common.optimizers import CLIPPING_HELP
from experiments.ptb.config import default_config
from experiments.ptb.run import DATA_DIR, run


def _main(config: Any, command_line: cli.CommandLine) -> None:
    run(config, command_line, DATA_DIR.value)


if __name__ == "__main__":
    flags.declare_key_flag(DATA_DIR.name)
    cli.run(_main, default_config(), notes=CLIPPING_HELP)
