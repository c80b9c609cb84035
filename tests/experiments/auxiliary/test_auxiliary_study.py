"""The experiment at a tiny size."""

import json

import jax
import numpy as np
import pytest

from experiments.auxiliary import training
from experiments.auxiliary.__main__ import STUDY
from experiments.auxiliary.problems import PROBLEMS, make_stream, side_by_side
from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.tasks.digits import images

TINY = (
    "problems=('memory',)",
    "window_length=4",
    "auxiliary_truncation=4",
    "hidden_size=3",
    "batch=2",
    "num_sequences=4",
    "learning_rates=(1e-2, 3e-2)",
    "num_seeds=2",
)


def test_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "ARMS", training.ARMS[3:5])  # each is compiled
    workdir = tmp_path / "run"
    config = load_config(STUDY.default_config(), None, TINY)
    STUDY.main(config, CommandLine(workdir, False, False, None))
    rows = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    alone, reconstructing = rows
    assert (alone["window"], reconstructing["window"]) == (None, "before")
    assert alone["gain"] == [0, 0]
    gain = np.subtract(reconstructing["accuracy"], alone["accuracy"])
    np.testing.assert_allclose(reconstructing["gain"], gain)
    assert reconstructing["loss"] != alone["loss"]
    assert (workdir / "auxiliary.png").is_file()


@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_a_stream_holds_the_sequences_and_asks_at_their_ends(name):
    problem = PROBLEMS[name]
    symbols, classes = problem.draw(jax.random.key(3), 6)
    stream = make_stream(problem, *side_by_side(problem, (symbols, classes), batch=2))
    assert np.flatnonzero(stream.resets).tolist() == [i * problem.length for i in range(3)]
    ends = np.flatnonzero(stream.mask)
    assert ends.tolist() == [i * problem.length - 1 for i in range(1, 4)]
    np.testing.assert_array_equal(stream.targets[ends].ravel(), classes)
    for i in range(6):
        first, row = i // 2 * problem.length, i % 2
        shown = stream.xs[first : first + problem.length, row]
        np.testing.assert_array_equal(shown, symbols[:, i])
    assert symbols.max() < problem.num_symbols and classes.max() < problem.num_classes
    if name == "memory":
        assert (symbols[0] == classes).all()
    else:
        known = {tuple(image) for image in images("train", name == "permuted_digits")[0].T}
        assert all(tuple(image) in known for image in symbols.T)


def test_anchors_first_params_data_and_tests_are_drawn_with_keys_of_their_own():
    """A key that served for two of them would tie the first weights to the symbols."""
    config = load_config(STUDY.default_config(), None, TINY)
    anchor_key, keys = training.make_keys(config)
    assert len({str(jax.random.key_data(key)) for key in (anchor_key, *keys.ravel())}) == 1 + 3 * 3
    real, noted = PROBLEMS["memory"], {}

    def draw(rng_key, number):
        noted["data"] = rng_key
        return real.draw(rng_key, number)

    def test(rng_key):
        noted["test"] = rng_key
        return real.test(rng_key)

    problem = real._replace(draw=draw, test=test)
    one = training.Training(problem, training.ARMS[0], config, anchor_key)
    one._train = lambda rates, params, data, test: (params["cell"]["input"][:, 0, 0], np.zeros(1))
    first_weight, _ = one.train([0.1], keys[:1])
    init_key, *expected = keys[0]
    assert [noted["data"], noted["test"]] == expected
    assert first_weight == np.float32(one.init(init_key)["cell"]["input"][0, 0])
