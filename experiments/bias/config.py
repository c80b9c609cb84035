"""The fields of the experiment."""

from typing import Any

from experiments.bias.systems import SYSTEMS
from experiments.common.arm_checks import check_plain_segments
from experiments.common.arms import parse
from experiments.common.errors import ConfigError
from experiments.common.fields import Field, arms, at_least, between, each_once, one_of, positive
from experiments.common.fields import seed as check_seed
from experiments.ptb.data import named_folder, penn_treebank

NAMES = tuple(SYSTEMS)
LAWS = ("law='geometric'", "alpha=4", "alpha=6")
NOISY = tuple(f"artbp({length}, {law})" for length in (8, 16, 32, 64) for law in LAWS)
ONLINE = ("rtrl(16)", "snap1(16)", "uoro(16)")

FIELDS = {
    "seed": Field(0, "of all keys", check_seed),
    "systems": Field(NAMES, "what is measured on", each_once, one_of(*NAMES)),
    "noisy_arms": Field(NOISY, "whose noise is measured", arms()),
    "tested_arms": Field(NOISY[3:6], "those of them whose bias gets an interval", arms()),
    "online_arms": Field(ONLINE, "whose bias and noise are measured on small systems", arms()),
    "window_length": Field(256, "time steps; the longest lag that is measured", at_least(8)),
    "num_windows": Field(48, "of the stream", at_least(8, "an interval needs 8 or more")),
    "num_variance_windows": Field(16, "that the noise is estimated from", at_least(1)),
    "num_samples": Field(12, "steps of each of these windows that are sampled", at_least(1)),
    "family_level": Field(0.95, "at which all intervals on bias hold together", between(0, 1)),
    "half_width_share": Field(
        0.2, "of the bias of TBPTT: ARTBP is drawn until its interval is as narrow", between(0, 1)
    ),
    "max_draws": Field(65_536, "for such an interval", at_least(1)),
    "num_keys": Field(64, "of an online arm with random numbers", at_least(2)),
    "short_memory": Field(8, "of a linear system, in time steps", positive),
    "long_memory": Field(64, "the noise of the geometric law explodes at 2 · L0", positive),
    "hidden_size": Field(24, "of the random network", at_least(1)),
    "rows": Field(4, "of the linear systems and the random network", at_least(1)),
    "character_hidden_size": Field(64, "of the character LSTM", at_least(1)),
    "character_rows": Field(16, "of the text", at_least(1)),
    "character_steps": Field(6000, "for which it is trained by TBPTT", at_least(1)),
    "character_rate": Field(1e-2, "of Adam in this training", positive),
}


def check(config: Any) -> None:
    """Raises ConfigError for arms whose gradients do not fit a window."""
    noisy, tested = ([*map(parse, texts)] for texts in (config.noisy_arms, config.tested_arms))
    for arm in noisy:
        if arm.name != "artbp" or not arm.length < config.window_length:
            short = f"a mean length below window_length = {config.window_length}"
            raise ConfigError(f"noisy_arms holds {arm.text}: expected artbp with {short}.")
        check_plain_segments("noisy_arms", arm)
    if not set(tested) <= set(noisy) or len({arm.length for arm in tested}) != 1:
        given = f"tested_arms was given {config.tested_arms}"
        raise ConfigError(f"{given}: expected some of noisy_arms, of one mean length.")
    if reads_penn_treebank(config):
        penn_treebank()  # raises DataError for missing files before anything is measured


def reads_penn_treebank(config: Any) -> bool:
    """Whether the run reads Penn Treebank, from the folder that ARTBP_DATA_DIR names."""
    return "characters" in config.systems and named_folder(None) is not None
