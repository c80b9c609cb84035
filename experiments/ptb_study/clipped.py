"""What clipping does to a trained model's gradients: how often it binds, where, and its bias."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from artbp import truncation
from artbp.contrib.clipping import ClippingReport, LengthBins, clipping_reports
from artbp.diagnostics.interval import student_t_quantile
from experiments.common.report import markdown_table
from experiments.ptb.model import CharacterModel
from experiments.ptb_study.limits import ALPHAS, MEAN_LENGTH, trained

NUM_STEPS, NUM_DRAWS = 3000, 8
TBPTT, ARTBP = f"TBPTT {MEAN_LENGTH}", f"ARTBP, polynomial({MEAN_LENGTH}, {ALPHAS[0]:g})"
UNCOMPENSATED = "the same cuts, uncompensated"
# Times the median over TBPTT's segments. These have all the same length, so that their gradients
# have nearly the same norm: one threshold there, and one that TBPTT does not feel.
FACTORS = (1, 2)
LEVEL = 0.95
# Shortest length of each column of the table, in time steps; powers of two, as the report's are.
_BINS = (1, 16, 64, 256)


class Clipped(NamedTuple):
    """One row of the table.

    estimator: its name.
    threshold: {"max_norm": …} or {"max_value": …}, in the units of the training.
    report: what `clipping_reports` says of the two.
    """

    estimator: str
    threshold: Mapping[str, float]
    report: ClippingReport


def clipping_of_run(folder: pathlib.Path, data_dir: str | None) -> list[Clipped] | None:
    """What clipping does to each estimator, at the parameters of a run that validated best.

    A gradient is that of all rows of the batch, with the normaliser of the training, so that the
    thresholds are those that would be set as `optimizer.clip_norm` and `optimizer.clip_value`.

    Returns:
        None where the text is too short.

    Raises:
        ExperimentError: the folder holds no finished run, or its text cannot be found.
    """
    run = trained(folder, data_dir, num_steps=NUM_STEPS, fewest_steps=NUM_STEPS)
    if run is None:
        return None
    given = run.params, run.carry, run.stream
    rng_keys = jax.random.split(jax.random.key(run.config.seed), NUM_DRAWS)
    estimators = _estimators(run.model, normalizer=float(MEAN_LENGTH * run.config.batch))
    sizes = segment_sizes(estimators[TBPTT], *given, rng_keys[0])
    thresholds = [
        {keyword: factor * float(np.median(found))}
        for keyword, found in sizes.items()
        for factor in FACTORS
    ]
    return [
        Clipped(name, threshold, report)
        for name, estimator in estimators.items()
        for threshold, report in zip(
            thresholds, clipping_reports(estimator, *given, rng_keys, thresholds), strict=True
        )
    ]


def _estimators(model: CharacterModel, normalizer: float) -> dict[str, artbp.GradientEstimator]:
    parts = model.cell, model.loss_fn
    law = truncation.polynomial(MEAN_LENGTH, ALPHAS[0])
    cuts = {"truncation_length": MEAN_LENGTH, "draw_offset": True}
    return {
        TBPTT: artbp.tbptt(*parts, **cuts, normalizer=normalizer),
        ARTBP: artbp.artbp(*parts, law, normalizer=normalizer),
        UNCOMPENSATED: artbp.artbp(*parts, law, compensate=False, normalizer=normalizer),
    }


def segment_sizes(
    estimator: artbp.GradientEstimator,
    params: Any,
    carry: Any,
    stream: artbp.Stream,
    rng_key: jax.Array,
) -> dict[str, np.ndarray]:
    """The sizes of the segments' gradients over one pass of the stream, as the thresholds see them.

    Returns:
        "max_norm": global norms; "max_value": largest entries by modulus; [segments].
    """

    @jax.jit
    def segment(params: Any, state: Any, stream: artbp.Stream) -> Any:
        gradient, state, info = estimator.estimate(params, state, stream)
        largest = jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(gradient)]).max()
        return (optax.global_norm(gradient), largest), state, info.end_of_stream

    sizes, end = [], False
    state = estimator.init(params, carry, rng_key=rng_key)
    while not end:
        size, state, end = segment(params, state, stream)
        sizes.append(size)
    norms, largest = np.array(sizes, np.float64).T
    return {"max_norm": norms, "max_value": largest}


def markdown(runs: Mapping[str, Sequence[Clipped]]) -> str:
    """The section "Clipping": a table of the runs, by their names; nothing where there are none."""
    if not runs:
        return ""
    rows = [{"run": name, "clipped": row} for name, found in runs.items() for row in found]

    def bins(i: int) -> Any:
        end = f"–{_BINS[i + 1] - 1}" if i + 1 < len(_BINS) else " or more"
        return (
            f"{_BINS[i]}{end} steps",
            lambda row: _percent(shares_by_length(row["clipped"].report.by_length)[i]),
        )

    columns = [
        ("run", lambda row: row["run"]),
        ("estimator", lambda row: row["clipped"].estimator),
        ("clipped to", lambda row: _show_threshold(row["clipped"].threshold)),
        ("binds", lambda row: _percent(row["clipped"].report.share_bound)),
        *(bins(i) for i in range(len(_BINS))),
        ("bias ÷ gradient [95 %]", lambda row: _show_bias(row["clipped"].report)),
        ("kept", lambda row: _percent(row["clipped"].report.against_unclipped.projection)),
        ("cosine", lambda row: f"{row['clipped'].report.against_unclipped.cosine:.4f}"),
    ]
    sentences = "\n".join(f"- {name}: {_describe(found)}" for name, found in runs.items())
    return f"""
## Clipping

At the same parameters, on {NUM_STEPS:,} steps of all rows. The gradient of each segment is clipped
by its norm, or entry by entry (value): to the median, over the segments of {TBPTT}, of the norm or
of the largest entry, and to twice that; in the units of the training. binds: the share of the
segments that this changes, of all and by length. bias: ‖c − g‖ ÷ ‖g‖ of the mean gradients c with
and g without clipping over {NUM_DRAWS} draws of the cuts; the interval is over the cuts, on this
text. kept: ⟨c, g⟩ ÷ ‖g‖². At a cosine of c and g near 1, clipping acts as a lower learning rate.

{markdown_table(rows, columns)}
{sentences}
"""


def _describe(found: Sequence[Clipped]) -> str:
    parts = []
    for keyword, what in (("max_norm", "norm"), ("max_value", "largest entry")):
        tightest = min(row.threshold[keyword] for row in found if keyword in row.threshold)
        kept = [
            f"{row.estimator} {_percent(row.report.against_unclipped.projection)}"
            for row in found
            if row.threshold == {keyword: tightest}
        ]
        parts.append(
            f"Clipped to the median {what}, of the mean gradient is kept: {'; '.join(kept)}."
        )
    return " ".join(parts)


def shares_by_length(by_length: LengthBins) -> list[float]:
    """The share of the segments that clipping changed in each column; NaN where there are none."""
    bounds = (*_BINS, np.inf)
    shares = []
    for i in range(len(_BINS)):
        inside = (bounds[i] <= by_length.shortest) & (by_length.shortest < bounds[i + 1])
        inside &= by_length.count > 0
        count = by_length.count[inside]
        bound = count @ by_length.share_bound[inside]
        shares.append(float(bound / count.sum()) if count.sum() else np.nan)
    return shares


def _show_threshold(threshold: Mapping[str, float]) -> str:
    [(keyword, value)] = threshold.items()
    return f"{keyword.removeprefix('max_')} {value:.3g}"


def _show_bias(report: ClippingReport) -> str:
    value = report.against_unclipped.relative_bias
    error = report.against_unclipped_error.relative_bias
    half_width = student_t_quantile(LEVEL, NUM_DRAWS - 1) * error
    return f"{value:.3f} [{max(value - half_width, 0):.3f}, {value + half_width:.3f}]"


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.0f} %"
