"""One run: train on the rows of the text, save the best params, score the test text."""

import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common import devices, figures, processes
from experiments.common.checkpoints import Checkpoints
from experiments.common.cli import CommandLine
from experiments.common.config import check_seed
from experiments.common.errors import ConfigError
from experiments.common.loop import train
from experiments.common.loop_options import LoopOptions
from experiments.common.metrics import largest_weight, read_metrics
from experiments.common.optimizers import make_optimizer
from experiments.common.session import Measure, TrainResult
from experiments.common.workdir import Workdir, open_workdir, write_atomically
from experiments.ptb import data, figure
from experiments.ptb.config import make_estimator, make_measure
from experiments.ptb.generated import generated_corpus
from experiments.ptb.model import CharacterModel, bits_per_character, character_model
from experiments.report.folder import write_html


class Parts(NamedTuple):
    """What a configuration describes apart from the text."""

    model: CharacterModel
    estimator: artbp.GradientEstimator
    optimizer: optax.GradientTransformation
    options: LoopOptions
    measure: Measure | None


class Prepared(NamedTuple):
    """The text, and the fields of `Parts`. xs and targets are int32 [steps, batch]."""

    corpus: data.Corpus
    model: CharacterModel
    estimator: artbp.GradientEstimator
    optimizer: optax.GradientTransformation
    options: LoopOptions
    measure: Measure | None
    xs: np.ndarray
    targets: np.ndarray
    left_over: int


def is_penn_treebank(config: Any) -> bool:
    """Whether the text is Penn Treebank, or else generated; ConfigError for any other source."""
    source = config.data.source
    if source not in ("ptb", "generated"):
        raise ConfigError(f"data.source is {source!r}: expected 'ptb' or 'generated'.")
    return source == "ptb"


def load_corpus(config: Any, data_dir: str | os.PathLike | None) -> data.Corpus:
    """The text that `config.data` names; raises ConfigError or DataError."""
    keep = config.data.keep_line_spaces
    if is_penn_treebank(config):
        return data.penn_treebank(data_dir, keep_line_spaces=keep)
    # The same text for every seed: a seed draws params and boundaries only.
    return generated_corpus(0, config.data.generated_lines, keep_line_spaces=keep)


def prepare(config: Any, data_dir: str | os.PathLike | None = None) -> Prepared:
    """Makes everything that can be refused, before the first file is written: ExperimentError."""
    corpus = load_corpus(config, data_dir)
    rows = data.batch_rows(corpus.train, config.batch)
    return Prepared(corpus, *make_parts(config, len(corpus.vocabulary)), *rows)


def make_parts(config: Any, num_symbols: int) -> Parts:
    """Makes what needs no text, for a text of so many different symbols."""
    check_seed("seed", config.seed)
    if config.columns < 1:
        raise ConfigError(f"columns is {config.columns}: expected 1 or more.")
    model = character_model(num_symbols=num_symbols, **config.model)
    measure = make_measure(config, model)
    options = LoopOptions(
        num_epochs=config.num_epochs,
        best_metric="valid_bpc",
        # Ten times the loss of a guess among all symbols counts as diverged.
        max_loss=10 * math.log(num_symbols),
        driver=config.driver,
        on_divergence=config.on_divergence,
        measure_every=config.shadow.every or 1,
    )
    estimator, optimizer = make_estimator(config, model), make_optimizer(**config.optimizer)
    return Parts(model, estimator, optimizer, options, measure)


def run(
    config: Any,
    command_line: CommandLine,
    data_dir: str | os.PathLike | None = None,
    num_devices: int = 1,
    *,
    initial_params: Any = None,
) -> dict[str, Any]:
    """Trains, evaluates, and writes all results into the workdir.

    These are `vocabulary.json`, the curve of the losses (`curve.png` and `.svg`), the report
    (`report.html`) and, last, `results.json`.

    The best params are those with the fewest bits per character on the validation text, evaluated
    after each epoch in `config.columns` columns. At the end both texts are scored with these, as
    one column and, where there are more, in these too ("in_columns" of the results). Two arms with
    the same seed start from the same params and read the same rows. Bad input leaves no workdir
    behind. Training starts with `initial_params`; by default the seed draws them. The rows of the
    batch are split over `num_devices` devices, of all processes together. Every process reads the
    text; process 0 writes the results, and all return them.
    """
    devices.check(num_devices, config.batch, config.driver)
    prepared = processes.everywhere(lambda: prepare(config, data_dir))
    processes.check_same("configuration", config.to_dict())
    workdir = Workdir(command_line.workdir)
    processes.from_first(lambda: _begin(config, command_line, prepared))
    corpus, model, xs = prepared.corpus, prepared.model, prepared.xs

    init_key, boundary_key = jax.random.split(jax.random.key(config.seed))
    params = model.init(init_key) if initial_params is None else initial_params
    names = ("tensorboard", "progress_bar", "checkpoint_every_seconds")
    given = {name: getattr(command_line, name) for name in names}
    stream = artbp.Stream(jnp.asarray(xs), jnp.asarray(prepared.targets))
    carry = model.initial_carry(params, config.batch)
    score = _make_score(prepared)
    result = train(
        *(prepared.estimator, prepared.optimizer, stream, params, carry),
        rng_key=boundary_key,
        workdir=workdir,
        options=dataclasses.replace(prepared.options, num_devices=num_devices, **given),
        evaluate=lambda p: {"valid_bpc": score(p, corpus.valid, columns=config.columns)},
        measure=prepared.measure,
    )
    return processes.from_first(lambda: _finish(config, workdir, prepared, result))


def _begin(config: Any, command_line: CommandLine, prepared: Prepared) -> None:
    """Opens the workdir, and prints what the run trains on."""
    workdir = open_workdir(command_line.workdir, config, resume=command_line.resume)
    workdir.record_start()
    vocabulary = json.dumps(dataclasses.asdict(prepared.corpus.vocabulary)) + "\n"
    write_atomically(workdir.path / data.VOCABULARY_FILE, vocabulary)
    counts = prepared.corpus.counts()
    characters = ", ".join(f"{split} {counts[split]:,}" for split in data.SPLITS)
    print(
        f"{config.data.source}: {counts['symbols']} symbols; {characters} characters\n"
        f"training on {config.batch} rows of {len(prepared.xs):,} steps; {prepared.left_over} "
        "symbols at the end of the text left over",
        flush=True,
    )


def _finish(
    config: Any, workdir: Workdir, prepared: Prepared, result: TrainResult
) -> dict[str, Any]:
    """Scores the best params, writes the curve, the report and, last, the results."""
    corpus, counts = prepared.corpus, prepared.corpus.counts()
    score = _make_score(prepared)
    identity = {"config": workdir.config_hash()}
    with Checkpoints(workdir.checkpoints_path, identity=identity, read_only=True) as checkpoints:
        best_params, record = checkpoints.restore_best(result.params)
    results = {name: config[name] for name in ("arm", "seed")}
    results["learning_rate"] = config.optimizer.learning_rate
    results["valid_bpc"] = record["valid_bpc"]
    results["test_bpc"] = score(best_params, corpus.test)
    if config.columns > 1:
        test_bpc = score(best_params, corpus.test, columns=config.columns)
        results["in_columns"] = {"valid_bpc": record["valid_bpc"], "test_bpc": test_bpc}
        results["valid_bpc"] = score(best_params, corpus.valid)
    results |= {"best_epoch": record["epoch"], "num_epochs": config.num_epochs}
    results["updates"] = result.progress.updates
    train_rows = [r for r in read_metrics(workdir.metrics_path) if r["kind"] == "train"]
    results["largest_weight"] = largest_weight(train_rows)
    results |= {"skipped": result.progress.skipped, "roll_backs": result.progress.roll_backs}
    results["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(best_params))
    results |= {"characters": counts, "steps_per_epoch": len(prepared.xs)}
    results |= {"left_over_symbols": prepared.left_over, "config": config.to_dict()}
    results["time"] = {"elapsed_seconds": result.progress.elapsed_seconds}
    curve = figure.draw(read_metrics(workdir.metrics_path), config)
    figures.save(curve, workdir.path / "curve.png")
    write_html(workdir.path, results=results)
    # Last: a study takes a run with this file for finished, and does not start it again.
    write_atomically(workdir.path / "results.json", json.dumps(results, indent=2) + "\n")
    line = (
        "{arm}, seed {seed}, learning rate {learning_rate:g}: valid {valid_bpc:.4f}, test "
        "{test_bpc:.4f} bits per character (best of {num_epochs} epochs: {best_epoch})"
    )
    print(line.format_map(results), flush=True)
    return results


def _make_score(prepared: Prepared) -> Callable[..., float]:
    newline = prepared.corpus.vocabulary.symbols.index(data.NEWLINE)
    return functools.partial(bits_per_character, prepared.model, newline=newline)
