"""The configuration of the experiment: every field, and what it means."""

from typing import Any, Literal, NamedTuple

import ml_collections

from experiments.common.config import check_at_least, check_not_empty, check_positive, check_seed
from experiments.common.errors import ConfigError


class Arm(NamedTuple):
    """A way of training.

    Attributes:
        kind: "tbptt"; "artbp"; or "frozen", where the recurrent weights stay as they were drawn
            and the readout alone is trained.
        length: updates come every so many steps, for "artbp" on average.
        label: for tables and figures.
    """

    kind: Literal["tbptt", "artbp", "frozen"]
    length: int
    label: str


def default_config() -> ml_collections.ConfigDict:
    """The fields; a file and `--set` change them."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    # Runs of an arm: first those that choose the learning rates, then those that are reported.
    config.num_tuning_runs = 2
    config.num_seeds = 4
    config.episode_length = 32  # time steps
    config.num_episodes = 768  # of a training, one after the other
    config.batch = 32  # rows read side by side
    config.hidden_size = 32
    # TBPTT(k2, k2); each length divides that of an episode.
    config.windows = (2, 4, 8)
    # ARTBP with the polynomial law.
    config.mean_length = 8
    config.alpha = 4.0
    # Lags that have a training of their own, and that the tables show.
    config.lags = (1, 8, 16, 24, 31)
    # Adam's, for each arm and each training the best of these.
    config.learning_rates = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    config.test_episodes = 64
    config.num_threads = 2  # arms trained at the same time
    return config


def arms(config: Any) -> list[Arm]:
    """The frozen network, the windows, full BPTT, and ARTBP."""
    length = config.episode_length
    return [
        Arm("frozen", config.mean_length, "readout alone"),
        *(Arm("tbptt", k2, f"TBPTT, k2 = {k2}") for k2 in config.windows),
        Arm("tbptt", length, "full BPTT"),
        Arm("artbp", config.mean_length, f"ARTBP, L0 = {config.mean_length}"),
    ]


def check_config(config: Any) -> None:
    """Raises ConfigError for a value that the experiment cannot run with."""
    check_seed("seed", config.seed)
    names = ("num_tuning_runs", "batch", "hidden_size", "test_episodes", "num_threads")
    check_at_least(config, 1, *names)
    if config.num_seeds < 2:
        raise ConfigError(f"num_seeds was given {config.num_seeds}: a spread needs at least 2.")
    if config.num_episodes < 4:
        raise ConfigError(
            f"num_episodes was given {config.num_episodes}: expected at least 4, because the loss "
            "of the last quarter chooses the learning rate."
        )
    check_not_empty(config, "windows", "lags")
    check_positive(config, "learning_rates")
    length = config.episode_length
    for k2 in config.windows:
        if not isinstance(k2, int) or not 1 <= k2 < length or length % k2:
            raise ConfigError(
                f"windows was given {k2!r}: expected integers that divide episode_length = "
                f"{length} and are smaller, so that windows end where episodes end."
            )
    for lag in config.lags:
        if not isinstance(lag, int) or not 1 <= lag < length:
            raise ConfigError(
                f"lags was given {lag!r}: expected integers from 1 to {length - 1}, the last step "
                "of an episode."
            )
    if not 1 < config.mean_length < length:
        raise ConfigError(
            f"mean_length was given {config.mean_length}: expected an integer from 2 to "
            f"{length - 1}, less than an episode."
        )
    if not config.alpha > 2:
        raise ConfigError(f"alpha was given {config.alpha}: expected more than 2.")
