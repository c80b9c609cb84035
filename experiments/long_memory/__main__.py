"""Compares Sparse Attentive Backtracking with TBPTT and full BPTT on copy memory.

python -m experiments.long_memory [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

from experiments.common.report import Report, table
from experiments.common.study import Say, Study
from experiments.long_memory import report, training
from experiments.long_memory.config import FIELDS, check


def run(config: Any, say: Say) -> Report:
    """Trains and tests every arm."""
    rows = training.run(config, say)
    text = table(rows, report.columns(), report.note(config))
    return Report(text, rows, {"long_memory": report.make_figure(config, rows)}, indent=None)


STUDY = Study("long_memory", FIELDS, run, check)

if __name__ == "__main__":
    STUDY.start()
