"""python -m experiments.compare [--config FILE] [--set field=value] [--workdir DIR]."""

import itertools
from typing import Any

from experiments.common import arms
from experiments.common.arms import Arm
from experiments.common.pool import in_threads
from experiments.common.report import Report, table
from experiments.common.study import Say, Study
from experiments.compare import report
from experiments.compare.config import FIELDS
from experiments.compare.systems import System, systems
from experiments.compare.training import Result, train


def run(config: Any, say: Say) -> Report:
    """Trains every arm on every system."""
    chosen_arms = [arms.parse(text) for text in config.arms]
    chosen_systems = [system for system in systems(config) if system.name in config.systems]
    pairs = list(itertools.product(chosen_systems, chosen_arms))

    def words(pair: tuple[System, Arm], result: Result) -> str:
        system, arm = pair
        choice = result.choice
        score = f"{result.score[1]:.2g} at rate {choice.rate:g}{choice.warning}"
        return f"{system.label}: {arm.label}: {score}"

    found = in_threads(
        lambda pair: train(config, *pair), pairs, config.num_threads, say=say, words=words
    )
    results = {(arm, system.name): next(found) for system, arm in pairs}
    rows = report.table_rows(chosen_arms, chosen_systems, results)
    text = table(rows, report.columns(chosen_systems), report.note(config))
    figure = report.figure(config, chosen_arms, chosen_systems, results)
    return Report(text, rows, {"compare": figure})


STUDY = Study("compare", FIELDS, run)

if __name__ == "__main__":
    STUDY.start()
