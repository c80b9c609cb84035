"""Makes the tables and the figure: predicted and observed at every trained point, and who won."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from experiments.common.arms import Arm
from experiments.common.figures import COLOURS, colors, new_figure
from experiments.common.report import Column, Row, markdown_table, select
from experiments.phase.budget import EQUAL, KINDS, states_stored, time_steps
from experiments.phase.study import Map, Point

_MARKERS = ("D", "o", "^", "P", "X")  # of the arms, in their order
Pens = dict[Arm, dict[str, Any]]


def _lead(row: Row) -> str:
    if not row["predicted_winner"]:
        return ""
    lead = f"{_number(row['lead'])} ± {_number(row['lead_standard_error'])}"
    return lead + {"yes": "", "tie": " (tie)", "no": " (no)"}[row["verdict"]]


def _number(value: float) -> str:
    return f"{value:.2g}" if np.isfinite(value) else "none"


COLUMNS: list[Column] = [
    ("memory ÷ L0", "{memory:g}"),
    ("rows", "{batch}"),
    ("estimator", "{estimator}"),
    ("time steps", "{num_steps:,}"),
    ("excess loss, predicted", lambda row: _number(row["predicted"])),
    ("observed", lambda row: f"{_number(row['observed'])} ± {_number(row['standard_error'])}"),
    ("median", lambda row: _number(row["median"])),
    ("rate, predicted", lambda row: _number(row["predicted_rate"])),
    ("chosen", lambda row: _number(row["rate"]) + "\\*" * row["at_edge"]),
    ("predicted to win", lambda row: "yes" if row["predicted_winner"] else ""),
    ("least observed", lambda row: "yes" if row["winner"] else ""),
    ("predicted kind ahead by", _lead),
]


def table_rows(config: Any, arms: Sequence[Arm], points: Sequence[Point]) -> list[Row]:
    """Makes a row for each arm at each point."""
    rows = []
    for point in points:
        for i, arm in enumerate(arms):
            predicted, (choice, excess) = point.predicted[i], point.trained[i]
            row: Row = {"equal": point.equal, "memory": point.memory, "batch": point.batch}
            row |= {"arm": arm.text, "estimator": arm.label, "predicted": predicted.excess}
            row |= {"num_steps": time_steps(config, arm, point.equal)}
            row |= {"predicted_rate": predicted.rate, "observed": float(excess.mean())}
            row["standard_error"] = float(excess.std(ddof=1) / np.sqrt(len(excess)))
            row |= {"median": float(np.median(excess)), "rate": choice.rate}
            row |= {"at_edge": choice.at_edge, "predicted_winner": i == point.predicted_winner}
            row |= {"winner": i == point.observed_winner, "verdict": point.verdict}
            row["lead"], row["lead_standard_error"] = point.difference
            rows.append(row | {"losses": [float(f"{loss:.6g}") for loss in excess]})
    return rows


def tables(config: Any, arms: Sequence[Arm], rows: Sequence[Row], points: Sequence[Point]) -> str:
    """Makes a table for each map, with what it shows, and the note."""
    sections = []
    for equal, words in EQUAL.items():
        text = markdown_table(select(rows, equal=equal), COLUMNS)
        sections.append(f"## Equal memory, {words}\n\n{text}\n{_verdicts(points, equal)}")
    return "\n\n".join([*sections, _note(config, arms)])


def _verdicts(points: Sequence[Point], equal: str) -> str:
    """Counts how often the prediction held."""
    verdicts = [point.verdict for point in points if point.equal == equal]
    return f"""\
The predicted kind is ahead of the other kinds by more than two standard errors at \
{verdicts.count("yes")} of {len(verdicts)} points; at {verdicts.count("tie")} the trainings do not \
tell it from another kind; at {verdicts.count("no")} another kind is ahead."""


def _note(config: Any, arms: Sequence[Arm]) -> str:
    stored = ", ".join(f"{arm.label}: {states_stored(config, arm):.0f}" for arm in arms)
    return f"""\
The kinds are {", ".join(KINDS.values())}. "Predicted kind ahead by": the least mean loss of the \
other kinds minus the least of the predicted kind, ± standard error over paired seeds.

Equal memory: the states that an estimator stores for its backward passes, as a mean over time \
({stored}). For unbiased TBPTT these are the states of a window and {2 * config.stored_carries} \
carries. Equal work: an estimator evaluates the cell as often as TBPTT does in \
{config.num_steps:,} time steps.

Excess loss: ½ Λ (θ − θ\\*)² after all time steps of SGD from \
θ = {config.start:g}; mean ± standard error over {config.num_seeds} seeds, at the rate with the \
least mean over {config.num_tuning_runs} other seeds, of {config.rates_per_decade} per decade \
from 10^{config.first_rate:g} to 10^{config.last_rate:g} (\\*: the first or the last of them). The \
prediction takes bias, data noise and the exact variance of boundaries and look-backs, and nothing \
from the trainings. There is none where the variance of a law is infinite, or cannot be summed \
from lags of four memories. The system (`experiments/phase/system.py`) has \
S = {config.later_power:g}, σ = {config.noise:g}, L0 = {config.mean_length}."""


def draw(
    config: Any, arms: Sequence[Arm], maps: Mapping[str, Map], points: Sequence[Point]
) -> Figure:
    """Draws the maps of winners, and predicted against observed losses."""
    figure, (*left, right) = new_figure(
        (15.5, 6.0),
        "Which truncation wins depends on memory and batch size, and can be predicted",
        "Left and middle: colour is the predicted winner, paler where its lead over the other "
        "kinds is small. Marks: least mean loss of the trainings; tie: the trainings do not tell\n"
        "the predicted kind from another; otherwise: another kind is ahead. Right: predicted from "
        "bias and variance alone, each at its best rate, and observed.",
        [(x, 0.09, 0.28, 0.67) for x in (0.04, 0.36)] + [(0.7, 0.09, 0.29, 0.67)],
    )
    pens = {
        arm: {"marker": marker, "color": color, "markeredgecolor": "black"}
        for marker, (arm, color) in zip(_MARKERS * len(arms), colors(arms).items(), strict=False)
    }
    for axes, (equal, words) in zip(left, EQUAL.items(), strict=True):
        _map(axes, config, pens, maps[equal], [p for p in points if p.equal == equal])
        axes.set_title(f"Equal memory, {words}", fontsize=10.5)
    _losses(right, pens, points)
    style: Any = {"ncol": len(arms), "frameon": False, "handletextpad": 0.3, "markerscale": 1.4}
    figure.legend(*right.get_legend_handles_labels(), loc=(0.03, 0.815), **style)
    return figure


def _map(axes: Axes, config: Any, pens: Pens, predicted: Map, points: Sequence[Point]) -> None:
    arms = list(pens)
    memories, batches, excess = predicted
    winner = excess.argmin(axis=0)
    # The paler the closer the next kind: white at a tie, full where it has four times the excess.
    kinds = np.array([arm.name for arm in arms])
    least = np.sort([excess[kinds == kind].min(axis=0) for kind in np.unique(kinds)], axis=0)
    lead = np.clip(np.log(least[1] / least[0]) / np.log(4), 0, 1)
    tint = (0.12 + 0.58 * lead)[..., None]
    full = np.array([to_rgb(pen["color"]) for pen in pens.values()])[winner]
    image = np.swapaxes(tint * full + (1 - tint), 0, 1)
    axes.pcolormesh(memories, batches, image, shading="nearest", rasterized=True)
    axes.set(xscale="log", yscale="log")
    axes.set(xlabel="memory of the system ÷ L0", ylabel="rows of a batch")
    axes.set_xticks(config.trained_memories, [f"{m:g}" for m in config.trained_memories])
    axes.set_yticks(config.trained_batches, [f"{b:g}" for b in config.trained_batches])
    axes.minorticks_off()
    for point in points:
        at = (point.memory, point.batch)
        axes.plot(*at, markersize=11, clip_on=False, **pens[arms[point.observed_winner]])
        text = {"yes": "", "tie": "tie", "no": "otherwise"}[point.verdict]
        axes.annotate(text, at, (0, 10), textcoords="offset points", ha="center")


def _losses(axes: Axes, pens: Pens, points: Sequence[Point]) -> None:
    for i, (arm, pen) in enumerate(pens.items()):
        shown = [p for p in points if np.isfinite(p.predicted[i].excess)]
        x = [p.predicted[i].excess for p in shown]
        y = np.array([p.trained[i].excess.mean() for p in shown])
        errors = np.array([p.trained[i].excess.std(ddof=1) for p in shown])
        errors /= np.sqrt([len(p.trained[i].excess) for p in shown])
        bars = [np.minimum(2 * errors, 0.98 * y), 2 * errors]
        label = arm.label.removesuffix(", run again")
        axes.errorbar(x, y, bars, label=label, linewidth=0, elinewidth=1, **pen)
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])
    low = min(p.predicted[i].excess for p in points for i in range(len(pens))) / 1.5
    axes.set(xscale="log", yscale="log")
    axes.plot([low, high], [low, high], color=COLOURS[7], linewidth=1, zorder=0)
    axes.set(xlabel="excess loss, predicted", ylabel="excess loss, observed (± 2 standard errors)")
