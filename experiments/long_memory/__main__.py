"""Compares tools for long dependencies on four tasks, at equal work.

python -m experiments.long_memory [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

from experiments.common.report import Report, table
from experiments.common.study import Say, Study
from experiments.long_memory import report, training
from experiments.long_memory.config import FIELDS, check


def run(config: Any, say: Say) -> Report:
    """Trains every arm on every task."""
    return make_report(config, training.run(config, say))


def make_report(config: Any, rows: Any) -> Report:
    """Returns the table, the rows and the figure."""
    text = table(report.by_arm(config, rows), report.columns(config), report.note(config))
    return Report(text, rows, {"long_memory": report.make_figure(config, rows)}, indent=None)


STUDY = Study("long_memory", FIELDS, run, check, splits_runs=True)

if __name__ == "__main__":
    STUDY.start()
