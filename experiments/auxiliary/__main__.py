"""Measures whether auxiliary losses (r-LSTM, p-LSTM) help where the only loss is at the end.

python -m experiments.auxiliary [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

from experiments.auxiliary import report, training
from experiments.auxiliary.config import FIELDS, check
from experiments.common.report import Report, table
from experiments.common.study import Say, Study


def run(config: Any, say: Say) -> Report:
    """Trains every arm on every problem."""
    rows = training.run(config, say)
    text = table(rows, report.COLUMNS, report.note(config))
    return Report(text, rows, {"auxiliary": report.make_figure(config, rows)}, indent=None)


STUDY = Study("auxiliary", FIELDS, run, check, splits_runs=True)

if __name__ == "__main__":
    STUDY.start()
