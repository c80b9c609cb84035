"""Predicts in closed form which estimator wins over memory and batch size, and trains.

python -m experiments.phase [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

from experiments.common.arms import parse
from experiments.common.report import Report
from experiments.common.study import Say, Study
from experiments.phase import report, study
from experiments.phase.budget import EQUAL
from experiments.phase.config import FIELDS, check


def run(config: Any, say: Say) -> Report:
    """Predicts the maps, and trains some of their points."""
    arms = [parse(text) for text in config.arms]
    maps = {equal: study.predict_map(config, arms, equal) for equal in EQUAL}
    say("maps predicted")
    points = study.train_points(config, arms, say)
    rows = report.table_rows(config, arms, points)
    text = report.tables(config, arms, rows, points)
    return Report(text, rows, {"phase": report.draw(config, arms, maps, points)}, indent=None)


STUDY = Study("phase", FIELDS, run, check, splits_runs=True)

if __name__ == "__main__":
    STUDY.start()
