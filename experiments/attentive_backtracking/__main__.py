"""Trains Sparse Attentive Backtracking, TBPTT and full BPTT on copy memory.

python -m experiments.attentive_backtracking [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

from experiments.attentive_backtracking import report, training
from experiments.attentive_backtracking.config import FIELDS, check
from experiments.common.report import Report, table
from experiments.common.study import Say, Study


def run(config: Any, say: Say) -> Report:
    """Trains and tests every arm on every number of symbols."""
    rows = training.run(config, say)
    text = table(rows, report.COLUMNS, report.note(config))
    return Report(text, rows, {"attentive_backtracking": report.make_figure(config, rows)})


STUDY = Study("attentive_backtracking", FIELDS, run, check)

if __name__ == "__main__":
    STUDY.start()
