"""What limits a trained model: `artbp.diagnostics.gradient_report` at the parameters of a run."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

import artbp
from artbp import diagnostics, truncation
from experiments.common.checkpoints import Checkpoints
from experiments.common.workdir import read_workdir
from experiments.ptb.model import CharacterModel
from experiments.ptb.run import prepare

WINDOW_LENGTH, NUM_WINDOWS = 500, 48
# Steps before the first window, from a carry of zeros.
_SETTLING = 500
TRUNCATION_LENGTHS = (10, 50, 200)
MEAN_LENGTH, ALPHAS = 50, (4.0, 6.0)


# Below, there is no interval.
_FEWEST_WINDOWS = 8


class Trained(NamedTuple):
    """A finished run: its parameters that validated best, and training text to look at them on.

    carry: after the first `_SETTLING` steps of the text; the stream goes on from there.
    """

    config: ml_collections.FrozenConfigDict
    model: CharacterModel
    params: Any
    carry: Any
    stream: artbp.Stream


def trained(
    folder: pathlib.Path,
    data_dir: str | None,
    *,
    num_steps: int,
    fewest_steps: int,
) -> Trained | None:
    """Reads a run, and the steps of its training text that follow the settling.

    Args:
        folder: of the run.
        data_dir: see `experiments.ptb.run.DATA_DIR`.
        num_steps: of the stream; fewer where the text ends.
        fewest_steps: without which there is nothing to measure.

    Returns:
        None where the text has fewer than `fewest_steps`.

    Raises:
        ExperimentError: the folder holds no finished run, or its text cannot be found.
    """
    workdir, values = read_workdir(folder)
    config = ml_collections.FrozenConfigDict(values)
    prepared = prepare(config, data_dir)
    model = prepared.model
    like = jax.eval_shape(model.init, jax.random.key(0))
    with Checkpoints(workdir.checkpoints_path, read_only=True) as checkpoints:
        params, _ = checkpoints.restore_best(like)
    if len(prepared.xs) < _SETTLING + fewest_steps:
        return None
    end = _SETTLING + num_steps
    xs, targets = prepared.xs[:end], prepared.targets[:end]
    none = model.initial_carry(params, xs.shape[1])
    carry, _ = jax.jit(lambda *given: artbp.unroll(model.cell, *given))(
        params, none, jnp.asarray(xs[:_SETTLING])
    )
    stream = artbp.Stream(xs[_SETTLING:], targets[_SETTLING:])
    return Trained(config, model, params, carry, stream)


def report_of_run(folder: pathlib.Path, data_dir: str | None) -> diagnostics.GradientReport | None:
    """The report of a finished run, on training text, with the parameters that validated best.

    Returns:
        None where the text is too short.

    Raises:
        ExperimentError: the folder holds no finished run, or its text cannot be found.
    """
    run = trained(
        folder,
        data_dir,
        num_steps=NUM_WINDOWS * WINDOW_LENGTH,
        fewest_steps=_FEWEST_WINDOWS * WINDOW_LENGTH,
    )
    if run is None:
        return None
    return diagnostics.gradient_report(
        run.model.cell,
        run.model.loss_fn,
        run.params,
        run.carry,
        run.stream,
        window_length=WINDOW_LENGTH,
        truncation_lengths=TRUNCATION_LENGTHS,
        laws=[truncation.polynomial(MEAN_LENGTH, alpha) for alpha in ALPHAS],
        rng_key=jax.random.key(run.config.seed),
    )


def markdown(reports: Mapping[str, diagnostics.GradientReport]) -> str:
    """The reports, by the names of their runs: what each says limits the model, and its table."""
    parts = [
        f"""\
# What limits the trained models

At the parameters that validated best, on at most {NUM_WINDOWS} windows of {WINDOW_LENGTH} steps of
training text, all rows of the batch. Intervals: 95 %, each by itself; see
`artbp.diagnostics.report_table`.
"""
    ]
    for name, report in reports.items():
        table = diagnostics.report_table(report)
        parts.append(f"## {name}\n\n{diagnostics.describe(report)}\n\n{table}\n")
    return "\n".join(parts)
