"""The configuration of the experiment: every field, and what it means."""

from typing import Any, NamedTuple, get_args

import ml_collections

from artbp.estimators.tbptt_k1_k2 import Mode
from experiments.common.config import check_at_least, check_not_empty, check_positive, check_seed
from experiments.common.errors import ConfigError

MODES: tuple[Mode, ...] = get_args(Mode)


class Arm(NamedTuple):
    """One setting of TBPTT(k1, k2)."""

    k1: int
    k2: int
    mode: Mode


def default_config() -> ml_collections.ConfigDict:
    """The fields; a file and `--set` change them."""
    config = ml_collections.ConfigDict()
    # The folder of the Penn Treebank files. "": the folder that ARTBP_DATA_DIR names; generated
    # text if it names none.
    config.data_dir = ""
    config.seed = 0
    # Runs of an arm, each with parameters and a slice of the text of its own: first those that
    # choose the learning rate, then those that are reported.
    config.num_tuning_runs = 2
    config.num_seeds = 5
    config.num_steps = 6000  # time steps of a run
    config.batch = 16  # rows read side by side
    config.hidden_size = 64
    # The three modes are compared at (k1, k2), and at (1, 1), where they are the same.
    config.k1 = 1
    config.k2 = 16
    config.k1_sweep = (1, 2, 4, 8, 16)  # at k2, mode "stored"
    config.k2_sweep = (1, 2, 4, 8, 16)  # at k1, mode "stored"
    # Adam's, for each arm the best of these.
    config.learning_rates = (5e-3, 1e-2, 2e-2, 4e-2, 8e-2)
    config.num_bins = 40  # points of a curve; a multiple of 4
    config.held_out_steps = 1000  # time steps of the held-out text, in `batch` rows
    # Seconds per update: median of so many rounds, in each of which every arm has its turn.
    config.timing_rounds = 15
    config.timing_steps = 1024
    config.num_threads = 2  # arms trained at the same time
    return config


def arms(config: Any) -> list[Arm]:
    """Every arm once: the modes, the sweeps, and the modes at (1, 1)."""
    wanted = [Arm(config.k1, config.k2, mode) for mode in MODES]
    wanted += [Arm(k1, config.k2, "stored") for k1 in config.k1_sweep]
    wanted += [Arm(config.k1, k2, "stored") for k2 in config.k2_sweep]
    wanted += [Arm(1, 1, mode) for mode in MODES]
    return list(dict.fromkeys(wanted))


def check_config(config: Any) -> None:
    """Raises ConfigError for a value that the experiment cannot run with."""
    check_seed("seed", config.seed)
    names = ("num_steps", "batch", "hidden_size", "k1", "k2", "held_out_steps", "num_threads")
    check_at_least(config, 1, *names, "num_tuning_runs", "timing_rounds", "timing_steps")
    if config.num_seeds < 2:
        raise ConfigError(f"num_seeds was given {config.num_seeds}: an interval needs at least 2.")
    if config.k2 <= config.k1:
        raise ConfigError(
            f"k1={config.k1} and k2={config.k2} were given: the modes differ for k2 > k1 only."
        )
    check_positive(config, "learning_rates")
    for name in ("k1_sweep", "k2_sweep"):
        check_not_empty(config, name)
        for value in config[name]:
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} was given {value!r}: expected integers, 1 or more.")
    if config.num_bins % 4 or not 4 <= config.num_bins <= config.num_steps:
        raise ConfigError(
            f"num_bins was given {config.num_bins}: expected a multiple of 4, because the last "
            f"quarter of a run is reported, and at most num_steps = {config.num_steps}."
        )
    longest = max(*config.k1_sweep, config.k1) * config.num_bins
    if longest > config.num_steps:
        raise ConfigError(
            f"num_steps was given {config.num_steps}: expected at least {longest}, so that every "
            "point of a curve has an update in it. Give more steps or fewer bins."
        )
