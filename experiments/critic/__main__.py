"""Measures what a learned critic saves unbiased TBPTT in variance, and where it saves nothing.

python -m experiments.critic [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

from experiments.common.report import Report, table
from experiments.common.study import Say, Study
from experiments.critic import report, training
from experiments.critic.config import FIELDS, check


def run(config: Any, say: Say) -> Report:
    """Trains every arm on every system."""
    rows = training.run(config, say)
    text = table(rows, report.columns(), report.note(config))
    return Report(text, rows, {"critic": report.make_figure(config, rows)}, indent=None)


STUDY = Study("critic", FIELDS, run, check)

if __name__ == "__main__":
    STUDY.start()
