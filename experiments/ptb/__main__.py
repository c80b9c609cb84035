"""Trains a character language model on Penn Treebank, by truncated BPTT or ARTBP.

python -m experiments.ptb --config configs/ptb/small.py --workdir DIR
"""

from typing import Any

from absl import flags

from experiments.common import cli, devices, processes
from experiments.common.optimizers import CLIPPING_HELP
from experiments.ptb import command_line
from experiments.ptb.config import default_config
from experiments.ptb.cost import cost
from experiments.ptb.run import run

COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "For a run in several processes: HOST:PORT of process 0, with --num_processes and "
    "--process_id; or 'auto', where JAX finds all three in the environment (Slurm, Open MPI, TPU).",
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Of the run, with --coordinator.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Of this process, from 0, likewise.")


def _main(config: Any, given_flags: cli.CommandLine) -> None:
    with processes.ends_with_the_others():
        processes.start(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
        num_devices = devices.read_number(devices.FLAG.value)
        run(config, given_flags, command_line.data_dir(config), num_devices)


def start() -> None:
    """Parses the flags and runs; exits with an error code."""
    for flag in (*command_line.FLAGS, devices.FLAG):
        flags.declare_key_flag(flag.name)
    own = {"experiment": "ptb", "cost": cost, "needs": command_line.NEEDS}
    cli.run(_main, default_config(), CLIPPING_HELP, **own)


if __name__ == "__main__":
    start()
