"""python -m experiments.report DIR [--output FILE]."""

import argparse
import sys
from pathlib import Path

from experiments.common.errors import ExperimentError
from experiments.report.folder import write_html


def main() -> int:
    """Writes the report of a folder; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report",
        description="Writes a report of a run or a study, finished or not, as one HTML file.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --workdir of an experiment")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the file to write; default: DIR/report.html"
    )
    given = parser.parse_args()
    try:
        print(write_html(given.folder, given.output))
    except ExperimentError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
