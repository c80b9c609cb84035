"""The fields of the experiment."""

from typing import Any

from experiments.common import fields
from experiments.common.arm_checks import check_plain_segments
from experiments.common.arms import parse
from experiments.common.errors import ConfigError
from experiments.common.fields import Field, at_least, one_of, positive
from experiments.influence_balancing.predictions import optimum
from experiments.influence_balancing.training import SCHEDULES

ARTBP = ("artbp(16, alpha=4)", "artbp(16, alpha=6)", "artbp(16, law='geometric')")
ARMS = (
    *ARTBP,
    "unbiased_tbptt(10, windows=1.5, alpha=4)",
    "tbptt(200)",
    "tbptt(100)",
    "tbptt(10)",
    "uncompensated(16, alpha=4)",
)
NAMES = ("tbptt", "artbp", "uncompensated", "unbiased_tbptt")
LOSS_AT = "unroll end: the loss is taken at the last of every K steps, K the length of the arm"
CLOCKS = ("time steps", "updates")

FIELDS = {
    "study": Field("curves", "curves, rates or settling", one_of("curves", "rates", "settling")),
    "arms": Field(ARMS, "of these estimators; tables keep their order", fields.arms()),
    "num_keys": Field(128, "runs of an arm that has randomness", at_least(1)),
    "num_steps": Field(100_000, "time steps of a run", at_least(1)),
    "seed": Field(0, "of all keys", fields.seed),
    "theta_0": Field(0.5, "θ at first"),
    "eta_0": Field(1e-3, "the rate of an update is eta_0 / sqrt(1 + t)", positive),
    "schedule": Field("time steps", "what t counts; constant: t = 0", one_of(*SCHEDULES)),
    "tolerance": Field(1e-3, "a run has converged when it ends with |θ − θ*| below this"),
    "loss_at": Field("every step", LOSS_AT, one_of("every step", "unroll end")),
    "num_unrolls": Field(3000, "with unroll end, a run has num_unrolls · K steps", at_least(1)),
    "drive_noise": Field(0.0, "standard deviation of the drive, for settling"),
    "grid_eta_0": Field((1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2), "eta_0 of rates", positive),
    "grid_schedules": Field(CLOCKS, "schedules of rates", one_of(*CLOCKS)),
    "num_bins": Field(200, "points of a curve, even in the logarithm of time", at_least(1)),
    "num_threads": Field(2, "arms trained at the same time", at_least(1)),
}


def check(config: Any) -> None:
    """Raises ConfigError for fields that do not go together."""
    study, drive_noise, best = config.study, config.drive_noise, optimum(config.drive_noise)
    start, at_unroll_end = abs(config.theta_0 - best), config.loss_at == "unroll end"
    if not 0 < config.tolerance < start:
        raise ConfigError(
            f"tolerance was given {config.tolerance}: expected more than 0 and less than "
            f"|theta_0 − θ*| = {start:.6g}, where a run starts (θ* = {best:.6g})."
        )
    if (drive_noise > 0) != (study == "settling"):
        given = f"drive_noise was given {drive_noise} for the study {study!r}"
        raise ConfigError(f"{given}: expected more than 0 for 'settling', and 0 for the others.")
    if at_unroll_end and study != "curves":
        raise ConfigError(f"loss_at='unroll end' works with study='curves', not {study!r}.")
    for arm in map(parse, config.arms):
        given = f"arms holds {arm.text}"
        if arm.name not in NAMES:
            raise ConfigError(f"{given}: expected {', '.join(NAMES)}.")
        check_plain_segments("arms", arm)
        if at_unroll_end and arm.length % 1 != 0:
            raise ConfigError(f"{given}: with loss_at='unroll end', expected an integer length.")
