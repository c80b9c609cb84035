"""`python -m experiments.ptb --config configs/ptb/small.py --workdir DIR`: one run."""

from typing import Any

from experiments.common import cli
from experiments.ptb.config import default_config
from experiments.ptb.run import DATA_DIR, run


def _main(config: Any, command_line: cli.CommandLine) -> None:
    run(config, command_line, DATA_DIR.value)


if __name__ == "__main__":
    cli.run(_main, default_config())
