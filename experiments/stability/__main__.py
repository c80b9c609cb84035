"""Measures how truncation, ARTBP and clipping behave where gradients explode.

python -m experiments.stability [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

import jax

from experiments.common.report import Report
from experiments.common.study import Say, Study
from experiments.stability import bound, figure, gradients, report, training
from experiments.stability.config import FIELDS, check


def run(config: Any, say: Say) -> Report:
    """Runs the four parts."""
    with jax.enable_x64(True):
        rows = gradients.norms(config)
        say("(i) gradient norms: done")
        rows += training.run(config, say)
        rows += bound.run(config)
        say("(iii) clipped steps: done")
        rows += gradients.bias(config)
    drawn = {"stability": figure.draw(config, rows)}
    return Report(report.tables(config, rows), rows, drawn, indent=1)


STUDY = Study("stability", FIELDS, run, check, splits_runs=True)

if __name__ == "__main__":
    STUDY.start()
