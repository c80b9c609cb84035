"""The text: found, checked, encoded, cut into rows; and what is refused."""

import functools
import http.server
import shutil
import threading

import numpy as np
import pytest

from experiments.ptb import data
from experiments.ptb.data import DataError, Vocabulary
from experiments.ptb.found_text import find_text
from experiments.ptb.generated import bits_per_character, generated_corpus, generated_text


def _naive_characters(path):
    return "".join(
        "_".join(line.split(" ")[1:-1] if line.startswith(" ") else line.split(" ")) + "\n"
        for line in path.read_text().splitlines()
    )


def test_every_split_decodes_to_the_file_in_the_character_convention(known_text, known_counts):
    corpus = data.penn_treebank(known_text)
    assert corpus.counts() == known_counts
    for split in data.SPLITS:
        symbols = getattr(corpus, split)
        assert symbols.dtype == np.int32
        naive = _naive_characters(known_text / f"ptb.{split}.txt")
        assert len(symbols) == corpus.counts()[split] == len(naive)
        assert corpus.vocabulary.decode(symbols[:5000]) == naive[:5000]
        assert corpus.vocabulary.decode(symbols[-5000:]) == naive[-5000:]
    assert corpus.vocabulary.symbols == "".join(sorted(set(corpus.vocabulary.symbols)))


def test_character_convention_by_hand():
    corpus = data.corpus_from_texts(" the <unk> N \n a b \n", "a b\nthe\n", "b a\n\nN")
    assert corpus.vocabulary.decode(corpus.train) == "the_<unk>_N\na_b\n"
    assert corpus.vocabulary.decode(corpus.valid) == "a_b\nthe\n"
    assert corpus.vocabulary.decode(corpus.test) == "b_a\n\nN\n"
    assert corpus.vocabulary.symbols == "\n<>N_abehkntu"


def test_line_spaces_by_hand():
    texts = " the <unk> N \n a b \n", "a b\nthe\n", "b a\n\nN"
    corpus = data.corpus_from_texts(*texts, keep_line_spaces=True)
    assert corpus.vocabulary.decode(corpus.train) == "_the_<unk>_N_\n_a_b_\n"
    assert corpus.vocabulary.decode(corpus.valid) == "_a_b_\n_the_\n"


def test_with_line_spaces_a_text_is_the_file(known_text, known_counts):
    corpus = data.penn_treebank(known_text, keep_line_spaces=True)
    for split in data.SPLITS:
        lines = (known_text / f"ptb.{split}.txt").read_text().splitlines()
        # Those of Penn Treebank have these spaces already.
        content = "".join(f" {line.strip()} \n" for line in lines)
        assert corpus.vocabulary.decode(getattr(corpus, split)) == content.replace(" ", "_")
        spaces = 2 * content.count("\n")
        assert corpus.counts()[split] == len(content) == known_counts[split] + spaces


def test_the_vocabulary_is_that_of_the_training_text():
    with pytest.raises(DataError, match="valid text contains 'x', 'z'"):
        data.corpus_from_texts("a b\nb a\n", "a z\nx b\n", "a\nb\n")


@pytest.mark.parametrize(
    ("text", "what"), [("", "empty"), ("\n \n", "empty"), ("a b\n", "one line")]
)
def test_a_text_without_lines_is_refused(text, what):
    with pytest.raises(DataError, match=f"the train text .*{what}"):
        data.corpus_from_texts(text, "a\nb\n", "a\nb\n")


def test_the_environment_variable_names_the_folder(known_text, monkeypatch):
    monkeypatch.setenv(data.DATA_DIR_VARIABLE, str(known_text))
    assert data.penn_treebank().counts() == data.penn_treebank(known_text).counts()


def _copy(folder, target):
    for split in data.SPLITS:
        shutil.copy(folder / f"ptb.{split}.txt", target)


def test_a_missing_file_is_named(known_text, tmp_path):
    _copy(known_text, tmp_path)
    (tmp_path / "ptb.valid.txt").unlink()
    with pytest.raises(DataError, match=r"no file .*ptb\.valid\.txt.*--data_dir or ARTBP_DATA_DIR"):
        data.penn_treebank(tmp_path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda text: text.replace(b"e", b"a", 1), "sha256"),
        (lambda text: text.replace(b"\n", b"\r\n"), "sha256"),
        (lambda text: text[:-1], "sha256"),
        (lambda text: b"", "an empty file"),
    ],
)
def test_an_altered_file_is_refused(known_text, tmp_path, change, what):
    _copy(known_text, tmp_path)
    path = tmp_path / "ptb.test.txt"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=what):
        data.penn_treebank(tmp_path)


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def mirror(known_text, tmp_path, monkeypatch):
    """A folder served as the mirror, and a cache of its own."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    _copy(known_text, folder)
    handler = functools.partial(_QuietHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(data, "MIRROR", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setattr(data.pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_download_once(mirror, known_text):
    with pytest.raises(DataError, match=r"no file .*--download"):
        data.penn_treebank()
    assert not data.is_downloaded()
    data.download()
    assert data.is_downloaded()
    counts = data.penn_treebank().counts()
    assert counts == data.penn_treebank(known_text).counts()
    shutil.rmtree(mirror)
    data.download()
    assert data.penn_treebank().counts() == counts


def test_a_download_of_something_else_is_refused(mirror):
    (mirror / "ptb.train.txt").write_text("another text\nof two lines\n")
    with pytest.raises(DataError, match=r"could not be downloaded.*hash"):
        data.download()


def test_a_failing_download_says_what_to_do(mirror):
    shutil.rmtree(mirror)
    with pytest.raises(DataError, match=r"could not be downloaded.*--data_dir or ARTBP_DATA_DIR"):
        data.download()


@pytest.mark.parametrize(
    ("length", "batch"), [(25, 4), (26, 4), (101, 1), (3, 1), (64 * 5 + 1, 64)]
)
def test_rows_against_a_loop(length, batch):
    symbols = np.random.default_rng(0).integers(0, 50, length).astype(np.int32)
    xs, targets, left_over = data.batch_rows(symbols, batch)
    steps = (length - 1) // batch
    assert xs.shape == targets.shape == (steps, batch) and xs.dtype == targets.dtype == np.int32
    for row in range(batch):
        for step in range(steps):
            assert xs[step, row] == symbols[row * steps + step]
            assert targets[step, row] == symbols[row * steps + step + 1]
    # Each row goes on where the one before ends, and nothing is lost but what is reported.
    assert np.array_equal(targets.T.reshape(-1), symbols[1 : length - left_over])
    assert 0 <= left_over < batch


@pytest.mark.parametrize("batch", [0, 13, 24, 1000])
def test_a_batch_that_does_not_fit_is_refused(batch):
    with pytest.raises(DataError, match=f"batch = {batch}"):
        data.batch_rows(np.zeros(25, np.int32), batch)


def test_generated_text_is_reproducible_and_has_one_alphabet():
    assert generated_text(3, 20) == generated_text(3, 20) != generated_text(4, 20)
    corpus = generated_corpus(seed=5, num_lines=50)
    assert generated_corpus(seed=6, num_lines=2).vocabulary == corpus.vocabulary
    assert len(np.unique(corpus.test)) == len(corpus.vocabulary)
    with pytest.raises(DataError, match="num_lines = 1"):
        generated_text(0, 1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_symbols", [1, 500, 20_000])
def test_without_a_folder_text_is_generated_that_is_long_enough(seed, num_symbols, monkeypatch):
    monkeypatch.delenv("ARTBP_DATA_DIR", raising=False)
    found = find_text(seed, num_symbols)
    assert len(found.corpus.train) >= num_symbols
    assert (found.is_generated, found.name, found.environment) == (True, "generated text", "")


@pytest.mark.parametrize("named", ["argument", "environment"])
def test_a_folder_that_is_named_is_read(named, known_text, tmp_path, monkeypatch):
    monkeypatch.setenv("ARTBP_DATA_DIR", str(tmp_path if named == "argument" else known_text))
    found = find_text(0, 1, known_text if named == "argument" else None)
    assert not found.is_generated and found.environment == "ARTBP_DATA_DIR=FOLDER "
    np.testing.assert_array_equal(found.corpus.train, data.penn_treebank(known_text).train)
    monkeypatch.setenv("ARTBP_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"ptb\.train\.txt"):  # no text takes its place
        find_text(0, 1)


def test_the_entropy_of_the_generated_text():
    """The choices of a sentence, over its mean length in many lines."""
    bits = 1 + 2 * np.log2(10) + 2 * np.log2(6) + 1 + 0.5 * np.log2(4) + 0.7219
    characters = len(generated_text(1, 20_000)) / 20_000
    assert bits_per_character() == pytest.approx(bits / characters, rel=5e-3)


def test_vocabulary_round_trip():
    vocabulary = Vocabulary.of("hello_world\n")
    assert vocabulary.decode(vocabulary.encode("low_h\n")) == "low_h\n"
    with pytest.raises(DataError, match=r"prompt contains 'X', not among the 9"):
        vocabulary.encode("X", "prompt")
