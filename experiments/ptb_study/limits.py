"""What limits a trained model: `artbp.diagnostics.gradient_report` at the parameters of a run."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections

import artbp
from artbp import diagnostics, truncation
from experiments.common.checkpoints import Checkpoints
from experiments.common.tables import markdown_table
from experiments.common.workdir import read_workdir
from experiments.ptb.run import prepare

WINDOW_LENGTH, NUM_WINDOWS, ROWS = 500, 48, 16
# Steps before the first window, from a carry of zeros.
_SETTLING = 500
TRUNCATION_LENGTHS = (10, 50, 200)
MEAN_LENGTH, ALPHAS = 50, (4.0, 6.0)


# Below, there is no interval.
_FEWEST_WINDOWS = 8


def report_of_run(folder: pathlib.Path, data_dir: str | None) -> diagnostics.GradientReport | None:
    """The report of a finished run, on training text, with the parameters that validated best.

    Returns:
        None where the text is too short.

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
    rows = slice(0, min(ROWS, config.batch))
    if len(prepared.xs) < _SETTLING + _FEWEST_WINDOWS * WINDOW_LENGTH:
        return None
    end = min(len(prepared.xs), _SETTLING + NUM_WINDOWS * WINDOW_LENGTH)
    xs, targets = prepared.xs[:end, rows], prepared.targets[:end, rows]
    none = model.initial_carry(params, xs.shape[1])
    carry, _ = jax.jit(lambda *given: artbp.unroll(model.cell, *given))(
        params, none, jnp.asarray(xs[:_SETTLING])
    )
    return diagnostics.gradient_report(
        model.cell,
        model.loss_fn,
        params,
        carry,
        artbp.Stream(xs[_SETTLING:], targets[_SETTLING:]),
        window_length=WINDOW_LENGTH,
        truncation_lengths=TRUNCATION_LENGTHS,
        laws=[truncation.polynomial(MEAN_LENGTH, alpha) for alpha in ALPHAS],
        rng_key=jax.random.key(config.seed),
    )


def markdown(reports: Mapping[str, diagnostics.GradientReport]) -> str:
    """A table of the reports, by the names of their runs, and what each says limits the model."""
    rows = []
    for name, report in reports.items():
        rows.append(
            {
                "run": name,
                "estimator": "BPTT through the window",
                "bias": "0",
                "noise": f"{report.data_noise:.2f}",
                "variance": "1",
            }
        )
        for bias in report.biases:
            low, high = bias.interval
            rows.append(
                {
                    "run": name,
                    "estimator": f"TBPTT {bias.truncation_length}",
                    "bias": f"{bias.relative_bias:.3f} [{low:.3f}, {high:.3f}]",
                    "noise": "",
                    "variance": "",
                }
            )
        for noise in report.noises:
            added = noise.variance_to_data
            rows.append(
                {
                    "run": name,
                    "estimator": f"ARTBP, {diagnostics.law_name(noise.law)}",
                    "bias": "0",
                    "noise": f"{report.data_noise * (1 + added) ** 0.5:.2f}",
                    "variance": f"{1 + added:.3f}",
                }
            )
    headings = {
        "run": "run",
        "estimator": "estimator",
        "bias": "bias ÷ gradient [95 %]",
        "noise": "noise of a window ÷ gradient",
        "variance": "variance ÷ that of the data",
    }
    columns = [(text, lambda row, key=key: row[key]) for key, text in headings.items()]
    sentences = "\n".join(f"- {n}: {diagnostics.describe(r)}" for n, r in reports.items())
    return f"""\
# What limits the trained models

At the parameters that validated best, on at most {NUM_WINDOWS} windows of {WINDOW_LENGTH} steps of
training text, at most {ROWS} rows side by side.

{markdown_table(rows, columns)}
{sentences}
"""
