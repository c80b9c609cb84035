"""Trains a run's best params on with another arm: what do its boundaries change?

    ARTBP_DATA_DIR=FOLDER ./run python -m experiments.ptb_authors.continued RUN --workdir DIR
        --arm "tbptt(50, draw_offset=True, segment_start='initial')" --num_epochs 1

RUN is the folder of a Penn Treebank run. Everything but the arm, the number of epochs and the seed
of the boundaries is as there. The optimizer starts anew, so compare with a run that goes on with
the arm of RUN.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import ml_collections

from experiments.common.cli import CommandLine
from experiments.common.errors import ExperimentError
from experiments.common.workdir import read_workdir
from experiments.ptb.data import read_vocabulary
from experiments.ptb.run import make_parts, run
from experiments.ptb.trained import best_params


def main(arguments: Sequence[str] | None = None) -> dict:
    """Runs it, and returns the results of the run in DIR."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=pathlib.Path, help="the folder of a Penn Treebank run")
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="of the new run")
    parser.add_argument("--arm", required=True, help="as in experiments.common.arms")
    parser.add_argument("--num_epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, help="of the boundaries; by default that of RUN plus 1")
    parser.add_argument("--resume", action="store_true", help="go on with the run in DIR")
    parser.add_argument("--data_dir", help="of Penn Treebank; by default ARTBP_DATA_DIR")
    given = parser.parse_args(arguments)
    source, values = read_workdir(given.run)
    own = {"arm": given.arm, "num_epochs": given.num_epochs, "continues": source.config_hash()}
    own["seed"] = values["seed"] + 1 if given.seed is None else given.seed
    config = ml_collections.FrozenConfigDict(values | own)
    params = best_params(source, make_parts(config, len(read_vocabulary(source))).model)
    command_line = CommandLine(given.workdir, given.resume, False, None)
    return run(config, command_line, given.data_dir, initial_params=params)


if __name__ == "__main__":
    try:
        main()
    except ExperimentError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
