"""Texts for the ptb tests: the real Penn Treebank where ARTBP_DATA_DIR names it, else made up."""

import hashlib
import os
import pathlib

import pytest
import tiny_ptb

from experiments.common.config import load_config
from experiments.ptb import data
from experiments.ptb.config import default_config
from experiments.ptb.generated import generated_corpus, generated_text
from experiments.ptb.run import run

PENN_TREEBANK = data.SHA256
SEED, LINES = 7, 100


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    """A folder with the three files, and their sha256 hashes."""
    given = os.environ.get(data.DATA_DIR_VARIABLE)
    if given:
        return pathlib.Path(given), PENN_TREEBANK
    folder = tmp_path_factory.mktemp("text")
    hashes = {}
    for number, split in enumerate(data.SPLITS):
        lines = LINES if split == "train" else LINES // 10
        content = generated_text(3 * SEED + number, lines).encode()
        (folder / f"ptb.{split}.txt").write_bytes(content)
        hashes[split] = hashlib.sha256(content).hexdigest()
    return folder, hashes


@pytest.fixture
def known_text(text_folder, monkeypatch):
    """The folder, with its hashes as the expected ones."""
    folder, hashes = text_folder
    monkeypatch.setattr(data, "SHA256", hashes)
    monkeypatch.delenv(data.DATA_DIR_VARIABLE, raising=False)
    return folder


@pytest.fixture
def known_counts(text_folder):
    """Symbols and characters, newlines included: the usual ones of Penn Treebank."""
    _, hashes = text_folder
    if hashes is PENN_TREEBANK:
        return {"symbols": 50, "train": 5_017_482, "valid": 393_042, "test": 442_423}
    return generated_corpus(SEED, LINES).counts()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """(workdir, results) of one tiny run."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    config = load_config(default_config(), overrides=tiny_ptb.OVERRIDES)
    return workdir, run(config, tiny_ptb.command_line(workdir))
