"""What experiments.ptb says without a configuration, before a download, and in a dry run."""

import types

import jax
import pytest
import tiny_ptb
from absl import flags

from experiments.common import cli
from experiments.common.config import load_config
from experiments.common.errors import ConfigError, ExperimentError
from experiments.ptb import command_line, data
from experiments.ptb.config import default_config
from experiments.ptb.cost import cost
from experiments.ptb.run import prepare


def config(*overrides):
    return load_config(default_config(), overrides=[*tiny_ptb.OVERRIDES, *overrides])


@pytest.fixture
def downloads(monkeypatch):
    """The downloads that were made: there is no text on this machine, and no terminal."""
    made = []
    monkeypatch.delenv(data.DATA_DIR_VARIABLE, raising=False)
    monkeypatch.setattr(data, "is_downloaded", lambda: False)
    monkeypatch.setattr(data, "download", lambda: made.append("all"))
    terminal(monkeypatch, False)
    yield made
    flags.FLAGS.unparse_flags()


def terminal(monkeypatch, is_one, answer=None):
    stream = types.SimpleNamespace(isatty=lambda: is_one, write=lambda text: None)
    monkeypatch.setattr(command_line, "sys", types.SimpleNamespace(stdin=stream, stdout=stream))

    def ask(question):
        assert answer is not None, "A question without a terminal"
        assert "6 MB" in question and data.MIRROR in question
        return answer

    monkeypatch.setattr("builtins.input", ask)


@pytest.mark.parametrize(
    ("arguments", "answer", "number"),
    [
        (["--download"], None, 1),
        ([], None, 0),  # no terminal: no question, no download
        ([], "y", 1),
        ([], "", 0),
        (["--data_dir=elsewhere"], None, 0),
        (["--data_dir=elsewhere", "--download"], None, 0),
    ],
)
def test_nothing_is_downloaded_without_consent(arguments, answer, number, downloads, monkeypatch):
    if answer is not None:
        terminal(monkeypatch, True, answer)
    flags.FLAGS(["ptb", *arguments])
    named = "elsewhere" if "--data_dir=elsewhere" in arguments else None
    assert command_line.data_dir(config("data.source=ptb")) == named
    assert len(downloads) == number


def test_made_up_text_and_an_earlier_download_need_no_consent(downloads, monkeypatch):
    terminal(monkeypatch, True)  # a question would fail
    flags.FLAGS(["ptb"])
    assert command_line.data_dir(config()) is None
    monkeypatch.setattr(data, "is_downloaded", lambda: True)
    assert command_line.data_dir(config("data.source=ptb")) is None
    assert downloads == []


def test_without_a_configuration_it_says_what_it_takes(monkeypatch):
    refused = []
    monkeypatch.setattr(cli, "run_guarded", lambda main: refused.append(main))
    cli.run(lambda *_: None, default_config(), experiment="ptb", needs=command_line.NEEDS)
    flags.FLAGS(["ptb", "--workdir=w"])
    with pytest.raises(ConfigError) as caught:
        refused[0]()
    flags.FLAGS.unparse_flags()
    for words in (
        "configs/ptb/small.py",
        "two minutes a run",
        "--data_dir",
        "data.source=generated",
    ):
        assert words in str(caught.value)


def test_the_cost_is_that_of_the_run(finished_run):
    _, results = finished_run
    text = "\n".join(cost(config()))
    assert f"Parameters: {results['parameters']:,}." in text
    assert f"{results['steps_per_epoch']:,} time steps of 4 rows" in text
    # tiny_ptb has a mean length of 20.
    assert f"about {results['steps_per_epoch'] / 20:,.0f} updates" in text and "Epochs: 2." in text
    megabytes = f"{4 * results['parameters'] / 1e6:.3g}"
    assert f"parameters {megabytes}, gradient {megabytes}, optimiser state " in text


def test_the_memory_for_the_backward_pass_is_that_of_the_state():
    prepared = prepare(config())
    params = prepared.model.init(jax.random.key(0))
    carry = prepared.model.initial_carry(params, 4)
    state = prepared.estimator.init(params, carry, rng_key=jax.random.key(0))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state.scratch))
    assert f"residuals and carries for the backward pass {size / 1e6:.3g}," in "\n".join(
        cost(config())
    )


def test_the_cost_of_penn_treebank_needs_no_text(text_folder, known_text):
    text = "\n".join(cost(config("data.source=ptb", "batch=64", "data.keep_line_spaces=True")))
    assert "5,101,618 training characters" in text
    folder, hashes = text_folder
    if hashes["train"].startswith("fcea919f"):  # the real text
        corpus = data.penn_treebank(folder, keep_line_spaces=True)
        assert (len(corpus.train), len(corpus.vocabulary)) == (5_101_618, data.NUM_SYMBOLS)


@pytest.mark.parametrize("override", ["batch=100000", "arm=bptt", "data.source=wiki", "seed=-1"])
def test_the_cost_of_what_a_run_refuses_is_refused(override):
    with pytest.raises(ExperimentError):
        cost(config(override))
