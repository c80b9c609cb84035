"""Compares what a network learns from the truth and from its own forecasts as inputs.

python -m experiments.teacher_forcing [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

from experiments.common.report import Report, table
from experiments.common.study import Say, Study
from experiments.teacher_forcing import report, training
from experiments.teacher_forcing.config import FIELDS, check


def run(config: Any, say: Say) -> Report:
    """Trains every arm, and forecasts."""
    rows = training.run(config, say)
    text = table(rows, report.columns(config), report.note(config))
    return Report(text, rows, {"errors": report.make_figure(config, rows)}, indent=None)


STUDY = Study("teacher_forcing", FIELDS, run, check, splits_runs=True)

if __name__ == "__main__":
    STUDY.start()
