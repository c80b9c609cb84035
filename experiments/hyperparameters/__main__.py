"""Learns learning rates by differentiating through training: truncation flips the sign.

python -m experiments.hyperparameters [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

import jax

from experiments.common.arms import parse
from experiments.common.report import Report
from experiments.common.study import Say, Study
from experiments.hyperparameters import figure, problems, report, signs, training
from experiments.hyperparameters.config import FIELDS, check


def run(config: Any, say: Say) -> Report:
    """Both parts on each problem."""
    arms, rows = [parse(text) for text in config.arms], []
    with jax.enable_x64(True):
        for name in config.problems:
            problem = problems.PROBLEMS[name](config)
            grid = problems.try_rates(config, problem)
            say(f"{name}: grid of rates tried")
            rows += [grid, *signs.run(config, problem, arms, grid)]
            say(f"{name}: signs measured")
            rows += training.run(config, problem, arms, say)
    drawn = {"hyperparameters": figure.draw(config, rows)}
    return Report(report.tables(config, rows), rows, drawn, indent=None)


STUDY = Study("hyperparameters", FIELDS, run, check, splits_runs=True)

if __name__ == "__main__":
    STUDY.start()
