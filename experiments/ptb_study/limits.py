"""What limits a trained model, and what clipping does to its gradients, at the params of a run."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

import artbp
from artbp import diagnostics, truncation
from artbp.contrib.clipping import LengthBins, clipping_reports
from artbp.diagnostics.interval import student_t_quantile
from experiments.common.arms import Arm, parse
from experiments.common.report import Column, Row, markdown_table
from experiments.common.workdir import read_workdir
from experiments.ptb.model import CharacterModel
from experiments.ptb.run import prepare
from experiments.ptb.trained import best_params

_SETTLING = 500  # steps before the measured ones, from a carry of zeros
_FEWEST_WINDOWS = 8  # without these there is no interval
WINDOW_LENGTH, NUM_WINDOWS = 500, 48
TRUNCATION_LENGTHS = (10, 50, 200)
MEAN_LENGTH, ALPHAS = 50, (4.0, 6.0)

CLIPPED_STEPS, NUM_DRAWS = 3000, 8
CLIPPED_ARMS = ("tbptt(50, draw_offset=True)", "artbp(50, alpha=4)", "uncompensated(50, alpha=4)")
# Times the median over the segments of TBPTT. These have the same length and nearly the same norm:
# the first threshold binds there, and the second does not.
FACTORS = (1, 2)
# Shortest length of each column of the table, in time steps; powers of two, as in the report.
_BINS = (1, 16, 64, 256)


class Trained(NamedTuple):
    """A finished run: its params that validated best, and training text to measure on.

    carry: after the first `_SETTLING` steps of the text; xs and targets go on from there.
    """

    config: ml_collections.FrozenConfigDict
    model: CharacterModel
    params: Any
    carry: Any
    xs: np.ndarray
    targets: np.ndarray

    def on(self, num_steps: int) -> tuple[Any, Any, artbp.Stream]:
        """The params, the carry and the stream of the first steps; fewer where the text ends."""
        stream = artbp.Stream(self.xs[:num_steps], self.targets[:num_steps])
        return self.params, self.carry, stream


def trained(folder: pathlib.Path, data_dir: str | None) -> Trained:
    """Reads a finished run and its training text."""
    workdir, values = read_workdir(folder)
    config = ml_collections.FrozenConfigDict(values)
    prepared = prepare(config, data_dir)
    model = prepared.model
    params = best_params(workdir, model)
    settling, xs = np.split(prepared.xs, [_SETTLING])
    carry, _ = jax.jit(lambda *given: artbp.unroll(model.cell, *given))(
        params, model.initial_carry(params, xs.shape[1]), jnp.asarray(settling)
    )
    return Trained(config, model, params, carry, xs, prepared.targets[_SETTLING:])


def gradient_report(run: Trained) -> diagnostics.GradientReport | None:
    """`artbp.diagnostics.gradient_report` of a run; None where the text is too short."""
    if len(run.xs) < _FEWEST_WINDOWS * WINDOW_LENGTH:
        return None
    return diagnostics.gradient_report(
        run.model.cell,
        run.model.loss_fn,
        *run.on(NUM_WINDOWS * WINDOW_LENGTH),
        window_length=WINDOW_LENGTH,
        truncation_lengths=TRUNCATION_LENGTHS,
        laws=[truncation.polynomial(MEAN_LENGTH, alpha) for alpha in ALPHAS],
        rng_key=jax.random.key(run.config.seed),
    )


def clipping(run: Trained) -> list[Row]:
    """The effect of clipping on each of `CLIPPED_ARMS`; nothing where the text is too short.

    Gradients sum over all rows of the batch and have the normaliser of the training, so the
    thresholds could be set as `optimizer.clip_norm` and `optimizer.clip_value`.
    """
    if len(run.xs) < CLIPPED_STEPS:
        return []
    given, normalizer = run.on(CLIPPED_STEPS), float(MEAN_LENGTH * run.config.batch)
    rng_keys = jax.random.split(jax.random.key(run.config.seed), NUM_DRAWS)

    def build(arm: Arm) -> artbp.GradientEstimator:
        return arm.build(run.model.cell, run.model.loss_fn, normalizer=normalizer)

    arms = [parse(text) for text in CLIPPED_ARMS]
    sizes = segment_sizes(build(arms[0]), *given, rng_keys[0]).items()
    thresholds = [{name: k * float(np.median(found))} for name, found in sizes for k in FACTORS]
    return [
        {"arm": arm.label, "threshold": threshold, "report": report}
        for arm in arms
        for threshold, report in zip(
            thresholds, clipping_reports(build(arm), *given, rng_keys, thresholds), strict=True
        )
    ]


def segment_sizes(
    estimator: artbp.GradientEstimator, params: Any, carry: Any, stream: Any, rng_key: jax.Array
) -> dict[str, np.ndarray]:
    """The sizes of the segments' gradients over one pass of the stream, [segments].

    "max_norm" holds the global norms and "max_value" the largest entries by modulus.
    """

    @jax.jit
    def size(gradient: Any) -> Any:
        largest = jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(gradient)]).max()
        return optax.tree.norm(gradient), largest

    def append(sizes: list, gradient: Any, info: Any) -> list:
        return [*sizes, size(gradient)]

    jitted = estimator._replace(estimate=jax.jit(estimator.estimate))
    state = estimator.init(params, carry, rng_key=rng_key)
    sizes, _ = artbp.run_pass(jitted, params, state, stream, fold=append, initial=[])
    norms, largest = np.array(sizes, np.float64).T
    return {"max_norm": norms, "max_value": largest}


def markdown(runs: Mapping[str, Trained]) -> str:
    """`limits.md`, for runs by their names."""
    parts = [
        f"""\
# What limits the trained models

At the parameters that validated best, on at most {NUM_WINDOWS} windows of {WINDOW_LENGTH} steps of
training text, all rows of the batch. Intervals: 95 %, each by itself; see
`artbp.diagnostics.report_table`.
"""
    ]
    for name, run in runs.items():
        if report := gradient_report(run):
            table = diagnostics.report_table(report)
            parts.append(f"## {name}\n\n{diagnostics.describe(report)}\n\n{table}\n")
    return "\n".join(parts) + clipping_section({name: clipping(run) for name, run in runs.items()})


def clipping_section(runs: Mapping[str, Sequence[Row]]) -> str:
    """The section "Clipping": a table of the runs, by their names; nothing without rows."""
    rows = [{"run": name} | row for name, found in runs.items() for row in found]
    if not rows:
        return ""

    def threshold(row: Row) -> str:
        [(keyword, value)] = row["threshold"].items()
        return f"{keyword.removeprefix('max_')} {value:.3g}"

    def bias(row: Row) -> str:
        value = row["report"].against_unclipped.relative_bias
        error = row["report"].against_unclipped_error.relative_bias
        half_width = student_t_quantile(0.95, NUM_DRAWS - 1) * error
        return f"{value:.3f} [{max(value - half_width, 0):.3f}, {value + half_width:.3f}]"

    def remains(row: Row) -> str:
        return _percent(row["report"].against_unclipped.projection)

    def binds(i: int) -> Column:
        end = f"–{_BINS[i + 1] - 1}" if i + 1 < len(_BINS) else " or more"
        return (
            f"{_BINS[i]}{end} steps",
            lambda row: _percent(shares_by_length(row["report"].by_length)[i]),
        )

    columns: list[Column] = [
        ("run", "{run}"),
        ("arm", "{arm}"),
        ("clipped to", threshold),
        ("binds", lambda row: _percent(row["report"].share_bound)),
        *map(binds, range(len(_BINS))),
        ("bias ÷ gradient [95 %]", bias),
        ("remains", remains),
        ("cosine", "{report.against_unclipped.cosine:.4f}"),
    ]
    found = ""
    for name in runs:
        for keyword, what in (("max_norm", "norm"), ("max_value", "largest entry")):
            tight = [r for r in rows if r["run"] == name and keyword in r["threshold"]]
            shares = "; ".join(f"{r['arm']} {remains(r)}" for r in tight[:: len(FACTORS)])
            found += f"- {name}, clipped to the median {what}: {shares}.\n"
    return f"""
## Clipping

At the same parameters, on {CLIPPED_STEPS:,} steps of all rows. The gradient of each segment is
clipped by its norm, or entry by entry (value). The threshold is the median, over the segments of
TBPTT, of the norm or of the largest entry, or twice that, in the units of the training. binds: the
share of the segments that this changes, of all and by length. bias: ‖c − g‖ ÷ ‖g‖ of the mean
gradients c with and g without clipping over {NUM_DRAWS} draws of the boundaries; the interval is
over the boundaries, on this text. remains: ⟨c, g⟩ ÷ ‖g‖². At a cosine of c and g near 1, clipping
acts as a lower learning rate.

{markdown_table(rows, columns)}
Share of the mean gradient that remains:

{found}"""


def shares_by_length(by_length: LengthBins) -> list[float]:
    """The share of the segments that clipping changed in each column; NaN where there are none."""
    column = np.searchsorted(_BINS, by_length.shortest, side="right") - 1
    bound = by_length.count * np.nan_to_num(by_length.share_bound)  # NaN where the count is 0
    changed, number = (np.bincount(column, x, len(_BINS)) for x in (bound, by_length.count))
    with np.errstate(invalid="ignore"):
        return (changed / number).tolist()


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.0f} %"
