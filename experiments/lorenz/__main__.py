"""Compares evolution strategies that reuse their noise, on the task of the NRES paper.

python -m experiments.lorenz [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

from experiments.common.report import Report, table
from experiments.common.study import Say, Study
from experiments.lorenz import report, training, variances
from experiments.lorenz.config import FIELDS, check


def run(config: Any, say: Say) -> Report:
    """Trains every arm, and measures variances."""
    rows = training.run(config, say)
    text = table(rows, report.training_columns(), report.training_note(config, rows))
    say("Measuring variances.")
    measured = variances.run(config)
    text += "\n" + table(measured, report.variance_columns(), report.variance_note(config))
    rows += measured
    return Report(text, rows, {"lorenz": report.make_figure(config, rows)}, indent=None)


STUDY = Study("lorenz", FIELDS, run, check, splits_runs=True)

if __name__ == "__main__":
    STUDY.start()
