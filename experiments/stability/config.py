"""The fields of the experiment."""

from typing import Any

from experiments.common.arm_checks import check_as_named, check_plain_segments
from experiments.common.arms import Arm, parse
from experiments.common.errors import ConfigError
from experiments.common.fields import Field, arms, at_least, each_once, positive, rising, seed

ARTBP = "artbp(20, alpha=4)"
ARMS = ("bptt(200)", "tbptt(20)", ARTBP, "artbp(20, law='geometric')")
TRAINED = ("tbptt(20)", "bptt(200)", "bptt(200) clipped by norm")
TRAINED += (ARTBP, f"{ARTBP} clipped by norm", f"{ARTBP} clipped by value")
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

FIELDS = {
    "arms": Field(ARMS, "(i): whose gradient norms are measured", arms(finite_variance=True)),
    "trained": Field(TRAINED, "(ii): arms; all also run at the rate of the first", each_once),
    "clipped_arm": Field(ARTBP, "of (iii) and (iv)", arms(finite_variance=True)),
    "seed": Field(0, "of the first run", seed),
    "spectral_radii": Field((0.8, 1.0, 1.2, 1.5, 2.0), "ρ", rising, positive),
    "hidden_size": Field(32, "of the network", at_least(1)),
    "num_rows": Field(8, "of the Mackey-Glass series", at_least(1)),
    "sequence_length": Field(200, "time steps; each begins with an empty state", at_least(1)),
    "horizon": Field(6, "of the forecast, in time steps", at_least(1)),
    "num_norm_draws": Field(256, "(i): of weights, sequence and boundaries", at_least(1)),
    "num_sequences": Field(100, "of a training; the last tenth is scored", at_least(2)),
    "learning_rates": Field(RATES, "of SGD, for (ii)", rising, positive),
    "num_tuning_runs": Field(5, "runs that choose the learning rate", at_least(1)),
    "num_seeds": Field(5, "runs that are reported", at_least(1)),
    "clip_norm": Field(1.0, "θ_c, the bound of an arm that is clipped by norm", positive),
    "clip_value": Field(0.1, "the bound of an arm that is clipped by value", positive),
    "bound_learning_rate": Field(0.1, "η of the run of (iii)", positive),
    "bound_updates": Field(300, "of the run of (iii)", at_least(1)),
    "bound_points": Field(9, "of a step, for L", at_least(2, "expected at least 2, both ends")),
    "clip_bounds": Field((0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), "of (iv)", rising, positive),
    "clipping_radius": Field(1.2, "ρ of (iv)", positive),
    "clipping_learning_rates": Field((0.01, 0.1), "of the trainings of (iv)", rising, positive),
    "num_bias_keys": Field(400, "(iv): draws of the boundaries that are averaged", at_least(2)),
    "figure_radius": Field(1.5, "ρ of the panel of trainings"),
    "num_threads": Field(2, "trainings at the same time", at_least(1)),
}


def trained(config: Any) -> list[tuple[Arm, str, str]]:
    """(arm, what of its gradient is clipped: "norm", "value" or "", label) of each arm of (ii)."""
    found = []
    for text in config.trained:
        name, _, clip = text.partition(" clipped by ")
        arm = parse(name)
        found.append((arm, clip, f"{arm.label}, clipped by {clip}" if clip else arm.label))
    return found


def check(config: Any) -> None:
    """Raises ConfigError for arms that do not fit a sequence, or an unknown kind of clipping."""
    texts = dict.fromkeys(text.partition(" clipped by ")[0] for text in config.trained)
    arms(finite_variance=True)("trained", tuple(texts))
    if any(clip not in ("", "norm", "value") for _, clip, _ in trained(config)):
        raise ConfigError(f"trained was given {config.trained}: clip by norm or by value.")
    length = config.sequence_length
    for arm in map(parse, (*texts, *config.arms, config.clipped_arm)):
        expected = ""
        if arm.law is None or arm.length is None or not 2 <= arm.length <= length:
            expected = f"segments of 2 to sequence_length = {length} steps"
        elif not arm.claims.random and length % arm.length:
            expected = f"a divisor of sequence_length = {length}, to cut all sequences alike"
        if expected:
            raise ConfigError(f"{arm.text} was given: expected {expected}.")
        check_as_named("arms, trained or clipped_arm", arm, length)
    for arm in map(parse, config.arms):
        if arm.name not in ("bptt", "tbptt", "artbp"):
            raise ConfigError(f"arms holds {arm.text}: expected bptt, tbptt or artbp.")
        check_plain_segments("arms", arm)
    if config.figure_radius not in config.spectral_radii:
        given = f"figure_radius was given {config.figure_radius}"
        raise ConfigError(f"{given}: expected one of spectral_radii = {config.spectral_radii}.")
