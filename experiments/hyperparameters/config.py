"""The fields of the experiment."""

from typing import Any

from experiments.common import fields
from experiments.common.arm_checks import check_as_named, check_plain_segments
from experiments.common.arms import parse
from experiments.common.errors import ConfigError
from experiments.common.fields import Field, at_least, each_once, one_of, positive, rising, seed
from experiments.hyperparameters.problems import PROBLEMS

TRUNCATED = ("tbptt(4)", "tbptt(16)", "tbptt(64)", "artbp(16, alpha=4)", "artbp(16, alpha=6)")
UNBIASED = "unbiased_tbptt(16, windows=1.5, alpha=4)"
ARMS = ("bptt", *TRUNCATED, UNBIASED, "pes(16, num_pairs=8, scale=0.1)")
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)

FIELDS = {
    "problems": Field(tuple(PROBLEMS), "inner trainings", one_of(*PROBLEMS), each_once),
    "arms": Field(ARMS, "bptt, then what is compared with it", fields.arms(finite_variance=True)),
    "quadratic_steps": Field(300, "steps of the quadratic", at_least(2)),
    "num_directions": Field(50, "of the quadratic", at_least(1)),
    "curvature_power": Field(1.0, "its curvatures are i^(−power)"),
    "gradient_noise": Field(0.2, "its gradient noise has variance noise · curvature", positive),
    "network_steps": Field(200, "steps of the network", at_least(2)),
    "num_inputs": Field(10, "of the network", at_least(1)),
    "num_hidden": Field(10, "of the network", at_least(1)),
    "num_classes": Field(4, "of the network", at_least(2)),
    "input_power": Field(1.0, "its inputs have deviations i^(−power)"),
    "teacher_gain": Field(3.0, "size of the teacher's weights beside the first weights", positive),
    "teacher_seed": Field(0, "of the teacher and the scored inputs", seed),
    "minibatch_size": Field(8, "of the network", at_least(1)),
    "num_scored": Field(64, "inputs that the meta loss is taken on", at_least(1)),
    "start_range": Field((0.03, 1.5), "rates of the first step in the grid", positive, rising),
    "end_range": Field((0.0001, 1.5), "rates of the last step in the grid", positive, rising),
    "grid_size": Field(14, "rates in either range", at_least(2)),
    "num_scoring": Field(8, "inner trainings that score every schedule", at_least(1)),
    "scoring_seed": Field(1000, "of these", seed),
    "num_sign_points": Field(15, "(1) rates along each line", at_least(2)),
    "num_sign_trainings": Field(16, "(1) inner trainings of the network", at_least(2)),
    "num_draws": Field(8, "(1) draws of boundaries or look-backs on each of these", at_least(1)),
    "num_exact_draws": Field(1024, "(1) draws on the quadratic", at_least(1)),
    "sign_seed": Field(2000, "(1) of trainings and draws", seed),
    "first_rate": Field(0.05, "(2) both rates at first", positive),
    "num_trainings": Field(60, "(2) inner trainings of an outer one", at_least(1)),
    "outer_rates": Field(RATES, "(2) each arm gets the best", positive, rising),
    "seed": Field(0, "(2) of the first run; the others count up", seed),
    "num_tuning_runs": Field(2, "(2) runs that choose the outer rate", at_least(1)),
    "num_seeds": Field(5, "(2) runs that are reported", at_least(1)),
    "num_threads": Field(2, "(2) arms trained at the same time", at_least(1)),
}


def check(config: Any) -> None:
    """Raises ConfigError for ranges without two ends, and arms that do not fit."""
    for name in ("start_range", "end_range"):
        if len(config[name]) != 2:
            raise ConfigError(f"{name} was given {config[name]}: expected two rates.")
    first, *others = map(parse, config.arms)
    if first.name != "bptt" or first.length is not None:
        raise ConfigError(f"arms begins with {first.text}: expected bptt, to compare others with.")
    shortest = min(config.quadratic_steps, config.network_steps)
    for arm in others:
        check_as_named("arms", arm)
        if arm.law is not None and arm.name not in ("tbptt", "artbp"):
            raise ConfigError(f"arms holds {arm.text}: with segments, expected tbptt or artbp.")
        check_plain_segments("arms", arm)
        if arm.length is None or not arm.length < shortest:
            limit = f"min(quadratic_steps, network_steps) = {shortest}"
            raise ConfigError(f"arms holds {arm.text}: expected a length below {limit}.")
