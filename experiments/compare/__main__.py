"""Compares every estimator of the registry on the same systems, at the same cost.

python -m experiments.compare [--config FILE] [--set field=value] [--workdir DIR]
"""

import itertools
from typing import Any

from experiments.common import arms
from experiments.common.arms import Arm
from experiments.common.pool import in_threads
from experiments.common.report import Report, Row, table
from experiments.common.study import Say, Study
from experiments.common.tuning import rate_text
from experiments.compare import report
from experiments.compare.config import FIELDS, check
from experiments.compare.systems import System, systems
from experiments.compare.training import train


def run(config: Any, say: Say) -> Report:
    """Trains every arm on every system."""
    chosen_arms = [arms.parse(text) for text in config.arms]
    chosen_systems = [system for system in systems(config) if system.name in config.systems]
    pairs = list(itertools.product(chosen_systems, chosen_arms))

    def words(pair: tuple[System, Arm], row: Row) -> str:
        score = f"{row['score_median']:.2g} at rate {rate_text(row['rate'], row['rate_at_edge'])}"
        return f"{pair[0].label}: {pair[1].label}: {score}"

    found = in_threads(
        lambda pair: train(config, *pair), pairs, config.num_threads, say=say, words=words
    )
    results = {(system.name, arm): next(found) for system, arm in pairs}
    rows = [
        {"arm": arm.text, "label": arm.label, "bias": arm.claims.bias, "chain": arm.chain}
        | {system.name: results[system.name, arm] for system in chosen_systems}
        for arm in chosen_arms
    ]
    text = table(rows, report.columns(chosen_systems), report.note(config))
    return Report(text, rows, {"compare": report.figure(config, chosen_systems, rows)})


STUDY = Study("compare", FIELDS, run, check, splits_runs=True)

if __name__ == "__main__":
    STUDY.start()
