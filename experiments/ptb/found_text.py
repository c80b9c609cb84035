"""Penn Treebank where a folder is named for it, else generated text."""

import os
from typing import NamedTuple

from experiments.ptb.data import DATA_DIR_VARIABLE, Corpus, named_folder, penn_treebank
from experiments.ptb.generated import generated_corpus

_SHORTEST_LINE = 20  # characters; no line of generated text has fewer


class FoundText(NamedTuple):
    """A text, for experiments that also run without Penn Treebank."""

    corpus: Corpus
    is_generated: bool

    @property
    def name(self) -> str:
        """What to call it in tables and figures."""
        return "generated text" if self.is_generated else "Penn Treebank characters"

    @property
    def environment(self) -> str:
        """What a command needs before it to read Penn Treebank where no `data_dir` is given."""
        return "" if self.is_generated else f"{DATA_DIR_VARIABLE}=FOLDER "


def find_text(seed: int, num_symbols: int, data_dir: str | os.PathLike | None = None) -> FoundText:
    """Reads Penn Treebank from `data_dir` or the folder ARTBP_DATA_DIR, else generates a text.

    Generated text follows `seed` and has `num_symbols` of training text or more. Raises DataError
    for a folder that does not hold Penn Treebank; nothing is generated in its place.
    """
    if folder := named_folder(data_dir):
        return FoundText(penn_treebank(folder), is_generated=False)
    lines = 2 + num_symbols // _SHORTEST_LINE
    return FoundText(generated_corpus(seed, lines), is_generated=True)
