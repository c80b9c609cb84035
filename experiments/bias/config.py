"""The configuration of the experiment: every field, and what it means."""

from typing import Any

import ml_collections

from experiments.common.config import check_at_least, check_positive, check_seed
from experiments.common.errors import ConfigError

PROBLEMS = ("balancing", "short memory", "long memory", "random network", "characters")


def default_config() -> ml_collections.ConfigDict:
    """The fields; a file and `--set` change them."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.problems = PROBLEMS
    config.window_length = 256  # time steps of a window; the longest reach that is measured
    config.num_windows = 48
    # Mean lengths of ARTBP's segments for the noise; intervals on the bias are at `mean_length`.
    config.mean_lengths = (8, 16, 32, 64)
    config.mean_length = 16
    # Windows, and steps sampled in each, that the noise of a law is estimated from.
    config.num_variance_windows = 16
    config.num_samples = 12
    # All intervals on bias hold together at this level, 1 − 0.05 divided by their number each.
    config.family_level = 0.95
    # ARTBP's interval: draws until its half-width is this share of TBPTT's bias, at most so many.
    config.half_width_share = 0.2
    config.max_draws = 65_536
    config.num_keys = 64  # of an online estimator with random numbers
    # Memory in time steps of the linear systems; the geometric law's noise explodes at 2 · L0.
    config.short_memory = 8
    config.long_memory = 64
    config.hidden_size = 24  # of the random network
    config.rows = 4
    # The character model: trained by TBPTT for a while on Penn Treebank where ARTBP_DATA_DIR names
    # its folder, else on generated text.
    config.character_hidden_size = 64
    config.character_rows = 16
    config.character_steps = 6000
    config.character_rate = 1e-2
    return config


def check_config(config: Any) -> None:
    """Raises ConfigError for a value that the experiment cannot run with."""
    check_seed("seed", config.seed)
    unknown = [name for name in config.problems if name not in PROBLEMS]
    if unknown or not config.problems:
        raise ConfigError(f"problems holds {unknown}: expected some of {', '.join(PROBLEMS)}.")
    if config.num_windows < 8:
        raise ConfigError(f"num_windows is {config.num_windows}: an interval needs 8 or more.")
    names = ("rows", "hidden_size", "character_hidden_size", "character_rows", "character_steps")
    names += ("num_samples", "num_variance_windows", "max_draws", "num_keys")
    check_at_least(config, 1, *names)
    check_positive(config, "short_memory", "long_memory")
    lengths = (*config.mean_lengths, config.mean_length)
    if min(lengths) <= 1 or max(lengths) >= config.window_length:
        raise ConfigError(
            f"mean_lengths and mean_length hold {lengths}: expected numbers above 1 and below "
            f"window_length = {config.window_length}."
        )
    for name in ("family_level", "half_width_share"):
        if not 0 < config[name] < 1:
            raise ConfigError(f"{name} is {config[name]}: expected a number between 0 and 1.")
