"""Declares the fields of the experiment, and makes the arms that they describe."""

from typing import Any, get_args

from artbp.estimators.tbptt_k1_k2 import Mode
from experiments.common.arms import Arm, tbptt_k1_k2
from experiments.common.errors import ConfigError
from experiments.common.fields import Field, at_least, positive, seed, whole
from experiments.k1k2.training import read_texts

MODES: tuple[Mode, ...] = get_args(Mode)

FIELDS = {
    "data_dir": Field("", "of Penn Treebank; empty: that of ARTBP_DATA_DIR, else generated text"),
    "seed": Field(0, "of all keys", seed),
    "num_tuning_runs": Field(2, "runs that choose the learning rate", at_least(1)),
    "num_seeds": Field(5, "runs that are reported", at_least(2, "an interval needs at least 2")),
    "num_steps": Field(6000, "time steps of a run, each on text of its own", at_least(1)),
    "batch": Field(16, "rows read side by side", at_least(1)),
    "hidden_size": Field(64, "of the LSTM", at_least(1)),
    "k1": Field(1, "the modes are compared at (k1, k2), and at (1, 1), where they agree", whole(1)),
    "k2": Field(16, "see k1", whole(1)),
    "k1_sweep": Field((1, 2, 4, 8, 16), "at k2, mode stored", whole(1)),
    "k2_sweep": Field((1, 2, 4, 8, 16), "at k1, mode stored", whole(1)),
    "learning_rates": Field((5e-3, 1e-2, 2e-2, 4e-2, 8e-2), "of Adam, for each arm", positive),
    "num_bins": Field(40, "points of a curve", at_least(4)),
    "held_out_steps": Field(1000, "time steps of the held-out text, in each row", at_least(1)),
    "timing_rounds": Field(15, "in each of which every arm is timed once", at_least(1)),
    "timing_steps": Field(1024, "time steps that are timed", at_least(1)),
    "num_threads": Field(2, "arms trained at the same time", at_least(1)),
}


def arms(config: Any) -> list[Arm]:
    """Returns every arm once: the modes, the sweeps, and the modes at (1, 1)."""
    k1, k2 = config.k1, config.k2
    wanted = [tbptt_k1_k2(k1, k2, mode) for mode in MODES]
    wanted += [tbptt_k1_k2(swept, k2) for swept in config.k1_sweep]
    wanted += [tbptt_k1_k2(k1, swept) for swept in config.k2_sweep]
    wanted += [tbptt_k1_k2(1, 1, mode) for mode in MODES]
    return list(dict.fromkeys(wanted))


def check(config: Any) -> None:
    """Raises ConfigError for fields that do not go together, or a text that is too short."""
    k1, k2, num_bins, num_steps = config.k1, config.k2, config.num_bins, config.num_steps
    if k2 <= k1:
        raise ConfigError(f"k1={k1} and k2={k2} were given: the modes differ for k2 > k1 only.")
    if num_bins % 4 or num_bins > num_steps:
        given = f"num_bins was given {num_bins}"
        raise ConfigError(f"{given}: expected a multiple of 4, at most num_steps.")
    longest = max(*config.k1_sweep, k1) * num_bins
    if longest > num_steps:
        raise ConfigError(
            f"num_steps was given {num_steps}: expected at least {longest}, so that every point of "
            "a curve has an update in it. Give more steps or fewer bins."
        )
    read_texts(config)
