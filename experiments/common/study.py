"""Runs an experiment: from its configuration to its table, rows and figure.

    # experiments/NAME/__main__.py
    STUDY = Study("NAME", FIELDS, run)

    if __name__ == "__main__":
        STUDY.start()

`run(config, say) -> Report` is the experiment; `say(line)` prints a line of progress. `start` takes
the flags of `experiments.common.cli`; `main` is the same without a command line, for tests.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_collections
from absl import flags

from experiments.common import cli, devices, fields
from experiments.common.errors import ConfigError
from experiments.common.report import Report
from experiments.report.folder import write_html

Say = Callable[[str], None]


@dataclass(frozen=True)
class Study:
    """Describes an experiment of minutes, which keeps no checkpoint.

    Attributes:
        name: of the package in `experiments`.
        check: raises ConfigError for fields that do not go together, or for missing data. It runs
            after the checks of the single fields.
        cost: returns lines about parameters, steps and memory, for --dry_run.
        splits_runs: whether `run` trains by `devices.OverRuns`, and so takes --devices.
    """

    name: str
    fields: fields.Fields
    run: Callable[[Any, Say], Report]
    check: Callable[[Any], None] = lambda config: None
    cost: Callable[[Any], Sequence[str]] = lambda config: ()
    splits_runs: bool = False

    def default_config(self) -> ml_collections.ConfigDict:
        """Returns every field with its default."""
        return fields.default_config(self.fields)

    def check_config(self, config: Any) -> None:
        """Raises ConfigError for a configuration that the experiment cannot run with."""
        fields.check_config(self.fields, config)
        self.check(config)

    def main(self, config: ml_collections.FrozenConfigDict, command_line: cli.CommandLine) -> None:
        """Checks the configuration, opens the folder, runs, writes everything, prints the table."""
        self.check_config(config)
        with cli.from_the_start(config, command_line) as (workdir, say):
            print(self.run(config, say).write(workdir.path, self.name))
            write_html(workdir.path)

    def main_on_devices(
        self, config: ml_collections.FrozenConfigDict, command_line: cli.CommandLine
    ) -> None:
        """`main`, with the runs split over the devices of --devices."""
        number = devices.read_number(devices.FLAG.value)
        if number > 1 and not self.splits_runs:
            raise ConfigError(
                f"--devices is {devices.FLAG.value!r}: experiments.{self.name} uses one device. "
                "Leave the flag out."
            )
        with devices.for_runs(number):
            self.main(config, command_line)

    def checked_cost(self, config: ml_collections.FrozenConfigDict) -> Sequence[str]:
        """Returns the lines of `cost`; ConfigError as `check_config`."""
        self.check_config(config)
        return self.cost(config)

    def start(self) -> None:
        """`python -m experiments.NAME`: parses the flags and runs; exits with an error code."""
        flags.FLAGS.set_default("workdir", f"results/{self.name}")
        if self.splits_runs:
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[devices.FLAG.name])
        cli.run(
            self.main_on_devices,
            self.default_config(),
            field_lines=fields.describe(self.fields),
            experiment=self.name,
            cost=self.checked_cost,
        )
