"""Gives each run a slice of Penn Treebank or, without it, of generated text."""

import os
from typing import Any, NamedTuple

import numpy as np

from experiments.common.errors import ConfigError
from experiments.ptb.data import DATA_DIR_VARIABLE, Corpus, batch_rows, penn_treebank
from experiments.ptb.generated import generated_corpus

GENERATED = "generated text"
_SHORTEST_LINE = 20  # characters; the generated text is at least as long as needed


class Texts(NamedTuple):
    """Symbols for all runs: (xs, targets), int32 [num_steps, batch] each.

    No two runs share a symbol. `held_out` has held_out_steps from the validation split.
    """

    name: str
    num_symbols: int
    runs: list[tuple[np.ndarray, np.ndarray]]
    held_out: tuple[np.ndarray, np.ndarray]


def read_texts(config: Any) -> Texts:
    """Returns the slices of text: some to tune on, then one for each seed.

    Raises:
        ConfigError: the text is too short.
        DataError: there is a folder for Penn Treebank, and it does not hold it.
    """
    num_runs = config.num_tuning_runs + config.num_seeds
    folder = config.data_dir or os.environ.get(DATA_DIR_VARIABLE)
    name = "Penn Treebank characters" if folder else GENERATED
    if folder:
        corpus = penn_treebank(folder)
    else:
        steps = max(num_runs * config.num_steps, 10 * config.held_out_steps) + 2
        corpus = generated_corpus(config.seed, 2 + config.batch * steps // _SHORTEST_LINE)
    pair = _rows(corpus, "train", num_runs * config.num_steps, config)
    runs = list(zip(*(np.split(part, num_runs) for part in pair), strict=True))
    held_out = _rows(corpus, "valid", config.held_out_steps, config)
    return Texts(name, len(corpus.vocabulary), runs, held_out)


def _rows(corpus: Corpus, split: str, num_steps: int, config: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first `num_steps` steps of a split that is read in `batch` rows."""
    symbols = getattr(corpus, split)
    xs, targets, _ = batch_rows(symbols, config.batch)
    if len(xs) < num_steps:
        raise ConfigError(
            f"The {split} text has {len(symbols)} symbols, or {len(xs)} time steps in batch = "
            f"{config.batch} rows: {num_steps} are needed. Give a smaller batch, or lower "
            f"{'held_out_steps' if split == 'valid' else 'num_steps or num_seeds'}."
        )
    return xs[:num_steps], targets[:num_steps]
