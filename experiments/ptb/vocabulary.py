"""The symbols of a text and their numbers, kept beside a run for sampling from it later."""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from experiments.common.errors import ExperimentError, WorkdirError
from experiments.common.workdir import Workdir, write_atomically

SPACE = "_"
NEWLINE = "\n"
_FILE_NAME = "vocabulary.json"


class DataError(ExperimentError):
    """A text is missing, is not the expected one, or does not fit the run."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The symbols of a text, in the order of their numbers.

    symbols: one string, each character of it one symbol; symbol number i is symbols[i].
    """

    symbols: str

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """The sorted distinct characters of `text`."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, text: str, name: str = "text") -> np.ndarray:
        """The symbol numbers of `text`, int32 [len(text)].

        Raises DataError if a character of `text` is not in the vocabulary; `name` says whose
        text it is.
        """
        unknown = sorted(set(text) - set(self.symbols))
        if unknown:
            raise DataError(
                f"{name} contains {', '.join(map(repr, unknown))}, not among the {len(self)} "
                f"symbols of the training text: {self.symbols!r}"
            )
        codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        table = np.zeros(max(map(ord, self.symbols), default=0) + 1, dtype=np.int32)
        for number, symbol in enumerate(self.symbols):
            table[ord(symbol)] = number
        return table[codes]

    def decode(self, numbers: np.ndarray) -> str:
        """The inverse of `encode`."""
        return "".join(self.symbols[int(number)] for number in numbers)


def write_vocabulary(workdir: Workdir, vocabulary: Vocabulary) -> None:
    """Keeps the vocabulary in a run's folder."""
    text = json.dumps({"symbols": vocabulary.symbols}) + "\n"
    write_atomically(workdir.path / _FILE_NAME, text)


def read_vocabulary(workdir: Workdir) -> Vocabulary:
    """The vocabulary of a run.

    Raises:
        WorkdirError: the folder holds no run of ptb.
    """
    path = workdir.path / _FILE_NAME
    if not path.is_file():
        raise WorkdirError(f"{workdir.path} holds no ptb run: there is no {_FILE_NAME}.")
    return Vocabulary(json.loads(path.read_text(encoding="utf-8"))["symbols"])
