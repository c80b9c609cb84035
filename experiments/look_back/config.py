"""Declares the fields of the experiment, and reads the text."""

from typing import Any, NamedTuple

import numpy as np

from artbp.truncation import TruncationLaw, geometric
from experiments.common.errors import ConfigError
from experiments.common.fields import Field, at_least, between, positive, rising, seed, whole
from experiments.ptb.data import batch_rows
from experiments.ptb.found_text import FoundText, find_text
from experiments.ptb.model import CharacterModel, character_model

_GENERATED_WINDOWS = 1568  # as many as Penn Treebank has at the default sizes

FIELDS = {
    "seed": Field(0, "of all keys", seed),
    "hidden_size": Field(128, "of the LSTM", at_least(1)),
    "batch": Field(64, "rows, B", at_least(2)),
    "truncation_length": Field(50, "K, the steps of a window", at_least(1)),
    "hazard": Field(0.75, "c, the probability that a look-back stops at an edge", between(0, 1)),
    "learning_rates": Field((1.6e-2, 6.4e-2), "of Adam; variances: the first", positive),
    "points": Field((100, 2000, 4500), "updates at which measurements begin", whole(1), rising),
    "num_windows": Field(48, "measured from each point on, and to fit and to test laws", whole(3)),
    "every": Field(4, "updates from one measured window to the next", at_least(2)),
    "older_windows": Field(6, "J, through which the full gradient goes", at_least(2)),
    "history": Field(6, "windows before these, which recompute the carry", at_least(1)),
    "extra_works": Field((0.2, 1 / 3, 0.5, 1.0, 2.0), "W of the laws", positive, rising),
}


class Text(NamedTuple):
    """Where the text is from, its symbols, int32 `[T, B]` each, and the model that reads it."""

    found: FoundText
    xs: np.ndarray
    targets: np.ndarray
    model: CharacterModel


def read_text(config: Any) -> Text:
    """Reads Penn Treebank where ARTBP_DATA_DIR names its folder, else makes text."""
    number = config.batch * _GENERATED_WINDOWS * config.truncation_length + 1
    found = find_text(config.seed, number)
    symbols = found.corpus.train[: number if found.is_generated else None]
    xs, targets, _ = batch_rows(symbols, config.batch)
    model = character_model("lstm", len(found.corpus.vocabulary), config.hidden_size)
    return Text(found, xs, targets, model)


def rows_beyond(law: TruncationLaw, batch: int, num_edges: int) -> np.ndarray:
    """Returns B·S(j), j = 0, …, num_edges; ConfigError unless these are integers down to 1."""
    counts = np.round(batch * law.survival(np.arange(num_edges + 1)), 9)
    whole = counts[counts >= 1]
    if (whole % 1).any() or (len(whole) < len(counts) and whole[-1] != 1):
        raise ConfigError(f"B·S(j) is {counts} rows: expected integers down to 1.")
    return counts


def check(config: Any) -> None:
    """Raises ConfigError for bad numbers of rows, or windows that do not fit into a pass."""
    rows_beyond(geometric(1 / config.hazard), config.batch, config.older_windows)
    num_steps, length = len(read_text(config).xs), config.truncation_length
    before, span = config.older_windows + config.history, config.num_windows * config.every
    for point, next_one in zip(config.points, (*config.points[1:], np.inf), strict=True):
        first, last = point % -(-num_steps // length), num_steps // length - span
        if not before <= first <= last or next_one < point + span:
            raise ConfigError(
                f"points holds {point}, window {first} of a pass: expected window {before} to "
                f"{last}, and {span} updates or more to the next point."
            )
