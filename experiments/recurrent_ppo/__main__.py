"""Trains a recurrent policy by PPO, and measures the return for each window of the backward pass.

python -m experiments.recurrent_ppo [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

from experiments.common.pool import in_threads
from experiments.common.report import Report, table
from experiments.common.study import Say, Study
from experiments.recurrent_ppo import report
from experiments.recurrent_ppo.config import FIELDS, check, chosen_arms
from experiments.recurrent_ppo.training import train_arm


def run(config: Any, say: Say) -> Report:
    """Trains every arm."""
    arms = chosen_arms(config)
    rows = list(
        in_threads(
            lambda arm: report.make_row(config, train_arm(config, arm)),
            arms,
            config.num_threads,
            expense=lambda arm: arm.claims.random,  # random segments take the longest
            say=say,
            words=lambda arm, row: report.progress(row),
        )
    )
    text = table(rows, report.COLUMNS, report.note(config))
    figures = {"recurrent_ppo": report.make_figure(config, arms, rows)}
    return Report(text, rows, figures, indent=None)


STUDY = Study("recurrent_ppo", FIELDS, run, check, splits_runs=True)

if __name__ == "__main__":
    STUDY.start()
