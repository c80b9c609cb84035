"""Measures how far the state carries information beyond the reach of the gradient.

python -m experiments.memory [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

import jax

from experiments.common.pool import in_threads
from experiments.common.report import Report, table
from experiments.common.study import Say, Study
from experiments.memory import report
from experiments.memory.config import FIELDS, check, chosen_arms
from experiments.memory.training import cost, make_runs, train_arm


def run(config: Any, say: Say) -> Report:
    """Trains and tests every arm."""
    # Here and not in the threads, see `in_threads`.
    runs = jax.block_until_ready(make_runs(config))
    arms, last = chosen_arms(config), config.lags[-1]
    results = in_threads(
        lambda arm: train_arm(config, arm, runs),
        arms,
        config.num_threads,
        expense=lambda arm: arm.claims.random,  # random segments take the longest
        say=say,
        words=lambda arm, result: (
            f"{arm.label}: accuracy at lag {last} {result.accuracy[:, 0, last].mean():.1%}, "
            f"trained on it alone {result.accuracy[:, -1, last].mean():.1%}"
        ),
    )
    rows = report.make_rows(config, list(results))
    text = table(rows, report.columns(config, "every_lag"), report.notes(config, rows))
    return Report(text, rows, {"memory": report.make_figure(config, arms, rows)})


STUDY = Study("memory", FIELDS, run, check, cost, splits_runs=True)

if __name__ == "__main__":
    STUDY.start()
