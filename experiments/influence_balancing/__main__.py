"""Trains on a task where short windows give the wrong sign. The main job, `./run`.

python -m experiments.influence_balancing [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

from experiments.common.arms import parse
from experiments.common.pool import in_threads
from experiments.common.report import Report
from experiments.common.study import Say, Study
from experiments.influence_balancing import curves, rates, settling
from experiments.influence_balancing.config import FIELDS, check
from experiments.influence_balancing.training import train_arm

_STUDIES: dict[str, Any] = {"curves": curves, "rates": rates, "settling": settling}


def run(config: Any, say: Say) -> Report:
    """Trains every arm, and reports as the study says."""
    study = _STUDIES[config.study]
    runs = in_threads(
        lambda arm: train_arm(config, arm),
        [parse(text) for text in config.arms],
        config.num_threads,
        expense=lambda arm: arm.claims.random,  # these have more than one key
        say=say,
        words=lambda arm, run: f"{arm.label}: {study.words(study.rows_of(config, run))}",
    )
    return study.report(config, list(runs))


def cost(config: Any) -> list[str]:
    """Returns the lines of --dry_run about parameters and steps."""
    arms = [parse(text) for text in config.arms]
    always = config.drive_noise > 0
    keys = sum(config.num_keys if always or arm.claims.random else 1 for arm in arms)
    of_key = len(config.grid_eta_0) * len(config.grid_schedules) if config.study == "rates" else 1
    steps = f"{config.num_steps:,} time steps"
    if config.loss_at == "unroll end":
        steps = f"{config.num_unrolls:,} · K time steps, K the length of the arm"
    return ["Parameters: 1, θ.", f"Steps: {keys * of_key:,} runs of {steps}."]


STUDY = Study("influence_balancing", FIELDS, run, check, cost, splits_runs=True)

if __name__ == "__main__":
    STUDY.start()
