"""python -m experiments.phase [--config FILE] [--set field=value] [--workdir DIR]."""

from typing import Any

from experiments.common.arms import parse
from experiments.common.report import Report, table
from experiments.common.study import Say, Study
from experiments.phase import report, study
from experiments.phase.config import FIELDS, check


def run(config: Any, say: Say) -> Report:
    """Predicts the map, and trains some of its points."""
    arms = [parse(text) for text in config.arms]
    predicted = study.predict_map(config, arms)
    say("map predicted")
    points = study.train_points(config, arms, say)
    rows = report.table_rows(arms, points)
    text = table(rows, report.COLUMNS, report.note(config, points))
    return Report(text, rows, {"phase": report.draw(config, arms, predicted, points)})


STUDY = Study("phase", FIELDS, run, check)

if __name__ == "__main__":
    STUDY.start()
