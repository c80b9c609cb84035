"""Compares target propagation with truncated and full BPTT on bits to be named some steps later.

python -m experiments.target_propagation [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

from experiments.common.report import Report, table
from experiments.common.study import Say, Study
from experiments.target_propagation import report, training
from experiments.target_propagation.config import FIELDS, check


def run(config: Any, say: Say) -> Report:
    """Trains and tests every arm."""
    rows = training.run(config, say)
    return Report(table(rows, report.columns(), report.note(config)), rows)


STUDY = Study("target_propagation", FIELDS, run, check)

if __name__ == "__main__":
    STUDY.start()
