"""Whole runs at a tiny size, each kind of arm, and bad input that must leave nothing behind."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_ptb

import artbp
from experiments.common.arms import parse
from experiments.common.checkpoints import Checkpoints
from experiments.common.config import load_config
from experiments.common.errors import (
    ConfigError,
    ExperimentError,
    TrainingDivergedError,
    WorkdirError,
)
from experiments.common.metrics import read_metrics
from experiments.common.workdir import read_workdir
from experiments.ptb import data
from experiments.ptb.config import default_config, make_estimator
from experiments.ptb.data import NEWLINE, read_vocabulary
from experiments.ptb.generated import generated_corpus
from experiments.ptb.model import bits_per_character, character_model
from experiments.ptb.run import load_corpus, prepare, run

CONFIGS = pathlib.Path(__file__).parents[3] / "configs" / "ptb"
ARMS = ("tbptt(20, draw_offset=True)", "artbp(20, alpha=4)", "uncompensated(20, alpha=4)")


def _config(*overrides):
    return load_config(default_config(), overrides=[*tiny_ptb.OVERRIDES, *overrides])


def _run(workdir, *overrides, resume=False, data_dir=None):
    return run(_config(*overrides), tiny_ptb.command_line(workdir, resume), data_dir)


def _as_json(value):
    return json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("arm", "more"),
    [
        (ARMS[0], ["model.cell=gru"]),
        (
            ARMS[2],
            [
                "driver=host",
                "optimizer.name=sgd",
                "optimizer.learning_rate=1.0",
                "optimizer.options.momentum=0.5",
                "optimizer.clip_norm=1.0",
            ],
        ),
    ],
)
def test_each_arm_learns(tmp_path, arm, more, capsys):
    results = _run(tmp_path / "run", f"arm={arm}", *more)
    assert results["arm"] == arm
    # The same run at rate 0 ends with the parameters it began with.
    prepared = prepare(_config(f"arm={arm}", *more))
    params = prepared.model.init(jax.random.split(jax.random.key(0))[0])
    vocabulary = prepared.corpus.vocabulary
    newline = vocabulary.symbols.index(NEWLINE)
    untrained = bits_per_character(prepared.model, params, prepared.corpus.test, newline)
    assert 0 < results["test_bpc"] < untrained - 0.3
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == _as_json(results)
    printed = capsys.readouterr().out
    assert f"{results['left_over_symbols']} symbols at the end of the text left over" in printed
    assert f"test {results['test_bpc']:.4f} bits per character" in printed


def test_a_huge_finite_loss_stops_the_run(tmp_path):
    with pytest.raises(TrainingDivergedError, match="above the limit"):
        _run(tmp_path / "run", f"arm={ARMS[0]}", "optimizer.learning_rate=1e3")
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize("module", ["experiments.ptb", "experiments.ptb_study"])
def test_help_lists_flags_fields_and_the_price_of_clipping(module):
    root = CONFIGS.parents[1]
    command = [sys.executable, "-m", module, "--help"]
    text = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60).stdout
    for words in (
        *("--workdir", "--config", "--set", "--[no]resume", "--[no]tensorboard", "--data_dir"),
        *("arm=artbp(50, alpha=4)", "optimizer.learning_rate=0.002", "optimizer.options.ANY"),
        "Clipping biases a random gradient",
    ):
        assert words in text


def test_results_are_those_of_the_best_parameters(finished_run):
    workdir_path, results = finished_run
    assert results["arm"] == "artbp(20, alpha=4)"
    workdir, values = read_workdir(workdir_path)
    corpus = generated_corpus(0, values["data"]["generated_lines"])
    vocabulary = read_vocabulary(workdir)
    assert vocabulary == corpus.vocabulary
    model = character_model("lstm", len(vocabulary), values["model"]["hidden_size"])
    with Checkpoints(workdir.checkpoints_path, read_only=True) as checkpoints:
        params, record = checkpoints.restore_best(jax.eval_shape(model.init, jax.random.key(0)))
    newline = vocabulary.symbols.index("\n")
    for split in ("valid", "test"):
        bits = bits_per_character(model, params, getattr(corpus, split), newline)
        assert results[f"{split}_bpc"] == pytest.approx(bits, rel=1e-6)
    evaluations = [r for r in read_metrics(workdir.metrics_path) if r["kind"] == "evaluation"]
    assert [row["epoch"] for row in evaluations] == [1, 2]
    best = min(evaluations, key=lambda row: row["valid_bpc"])
    assert results["valid_bpc"] == best["valid_bpc"] == record["valid_bpc"]
    assert results["best_epoch"] == best["epoch"]


def test_watched_or_not_the_training_is_the_same(finished_run, tmp_path):
    _, unwatched = finished_run
    small = ["window_length=40", "truncation_lengths=(10, 20)", "history_length=20", "num_rows=2"]
    shadow = [f"shadow.{field}" for field in ["every=1", *small]]
    watched = _run(tmp_path / "run", *shadow)
    same = {"config": None, "time": None}
    assert {**watched, **same} == {**unwatched, **same}
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    measurements = [row for row in rows if row["kind"] == "measurement"]
    assert [row["epoch"] for row in measurements] == [1, 2]
    for row in measurements:
        assert 0 < row["bias_20"] < row["bias_10"] < 1 and row["artbp_noise"] > 0
        # The carry between two passes is the initial one, whatever the parameters.
        assert row["carry_error"] < 1e-6


def test_a_workdir_holds_one_run(finished_run):
    workdir, results = finished_run
    with pytest.raises(WorkdirError, match="seed"):
        _run(workdir, "seed=1", resume=True)
    with pytest.raises(WorkdirError, match="--resume"):
        _run(workdir)
    again = _run(workdir, resume=True)
    assert {**again, "time": None} == {**results, "time": None}


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("batch=100000", "batch = 100000 rows do not fit"),
        ("batch=0", "batch = 0"),
        ("arm=bptt", "arm is 'bptt': expected one with a length"),
        ("arm=lstm(50)", "names 'lstm', which is unknown"),
        ("arm=artbp(1, alpha=4)", "mean_length=1"),
        ("arm=artbp(50, alpha=2.0)", "alpha=2.0"),
        ("model.cell=rnn", "model.cell is 'rnn'"),
        ("model.products=float16", "model.products is 'float16'"),
        ("data.source=wikipedia", "data.source is 'wikipedia'"),
        ("data.generated_lines=1", "num_lines = 1"),
        ("optimizer.name=adamm", "adamm"),
        ("optimizer.learning_rate=-1.0", "learning_rate is -1.0"),
        ("optimizer.options.momentum=0.9", "adam does not take"),
        ("seed=4294967296", "seed is 4294967296"),
        ("num_epochs=0", "num_epochs is 0"),
        ("shadow.every=-1", "shadow.every is -1"),
        ("shadow.num_rows=5", "shadow.num_rows is 5: expected 1 to batch = 4"),
        ("shadow.truncation_lengths=[300]", "shadow: truncation_lengths holds 300"),
        ("shadow.arm=artbp(50, alpha=2.0)", "alpha=2.0"),
        ("shadow.arm=tbptt(50)", "shadow.arm is .tbptt"),
        ("shadow.arm=artbp(50, alpha=4, segment_start='initial')", "Expected segment_start"),
        ("arm=tbptt_1_rmsprop", "an optimiser of its own"),
        ("arm=bptt(50)", "needs sequences of as many"),
        ("driver=fast", "driver is 'fast'"),
        ("data.source=ptb", "no file .*ptb.train.txt"),
    ],
)
def test_bad_input_is_named_and_leaves_no_workdir(tmp_path, override, what):
    empty = tmp_path / "no_data"
    empty.mkdir()
    with pytest.raises(ExperimentError, match=what):
        _run(tmp_path / "run", "shadow.every=1", "shadow.num_rows=4", override, data_dir=empty)
    assert not (tmp_path / "run").exists()


def test_an_unknown_field_is_refused():
    with pytest.raises(ConfigError, match="hidden_sizes"):
        _config("model.hidden_sizes=3")


def test_penn_treebank_is_the_default_source_and_never_replaced(known_text, tmp_path):
    config = load_config(default_config())
    assert load_corpus(config, known_text).counts() == data.penn_treebank(known_text).counts()
    with pytest.raises(data.DataError, match="no file"):
        load_corpus(config, tmp_path)


@jax.jit
def _readout_bias_gradient(params, carry, stream, length):
    """The bias of the readout is reached by no gate: its gradient is a plain sum over the steps."""
    model = character_model("lstm", 6, 4)

    def segment_loss(params):
        _, ys = artbp.unroll(model.cell, params, carry, stream.xs)
        losses = jax.vmap(model.loss_fn, (None, 0, 0))(params, ys, stream.targets)
        return losses.sum(where=jnp.arange(stream.num_steps)[:, None] < length)

    return jax.grad(segment_loss)(params)["readout"]["bias"]


@pytest.mark.parametrize("arm", ARMS)
def test_gradients_are_divided_by_a_constant_and_not_by_the_drawn_length(arm):
    config = _config(f"arm={arm}")
    model = character_model("lstm", 6, 4)
    symbols = jnp.asarray(np.random.default_rng(0).integers(0, 6, (40, config.batch)))
    stream = artbp.Stream(symbols[:-1], symbols[1:])
    params = model.init(jax.random.key(0))
    carry = model.initial_carry(params, config.batch)
    estimator = make_estimator(config, model)
    estimate = jax.jit(estimator.estimate)
    lengths = set()
    for seed in range(4):
        state = estimator.init(params, carry, rng_key=jax.random.key(seed))
        grads, _, info = estimate(params, state, stream)
        lengths.add(int(info.length))
        total = _readout_bias_gradient(params, carry, stream, info.length)
        expected = total / (20 * config.batch)
        np.testing.assert_allclose(grads["readout"]["bias"], expected, rtol=1e-4, atol=1e-6)
    assert len(lengths) > 1


@pytest.mark.parametrize("name", ["small", "authors"])
def test_configurations_load_and_build(name):
    config = load_config(default_config(), CONFIGS / f"{name}.py")
    assert config.data.source == "ptb" and config.batch == 64
    assert parse(config.arm).label.startswith("ARTBP 50, α = 4")
    for arm in ARMS:
        chosen = load_config(default_config(), CONFIGS / f"{name}.py", [f"arm={arm}"])
        make_estimator(chosen, character_model(num_symbols=50, **chosen.model))
