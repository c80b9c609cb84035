"""Makes the tables and the figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.figures import COLOURS, grid, label_ends, new_figure, plain_ticks
from experiments.common.report import Column, Row, markdown_table, select
from experiments.look_back.config import Text
from experiments.look_back.staleness import ERRORS
from experiments.look_back.variances import LAWS

_WORDS = ("truncation", "carry", "older windows, stored", "older windows, reforward")
_COLOURS = (COLOURS[0], COLOURS[7], COLOURS[3], COLOURS[4])
_LAW_COLOURS = (COLOURS[1], COLOURS[5], COLOURS[2])


def _of_error(name: str, words: str) -> Column:
    def text(row: Row) -> str:
        found = (row[name]["one_window"], row[name]["mean"], *row[name]["interval"])
        return "{:.2g}; {:.2g} [{:.2g}, {:.2g}]".format(*(100 * number for number in found))

    return words, text


def _of_law(name: str) -> Column:
    def text(row: Row) -> str:
        factor = " (× {:.3g} ± {:.1g})".format(*row[name]["ratio"]) if name != LAWS[0] else ""
        return f"{row[name]['variance']:.3g}{factor}"

    return name, text


_DATA: Column = ("data, one window", lambda row: f"{100 * row['data_noise']:.0f}")
COLUMNS: list[Column] = [
    ("learning rate", "{learning_rate:g}"),
    ("updates", "{updates:,}"),
    ("bits per character", "{bits:.2f}"),
    _DATA,
    *map(_of_error, ERRORS, _WORDS),
]
_LAW_COLUMNS: list[Column] = [
    ("updates", "{updates:,}"),
    ("W", "{extra_work:.2f}"),
    *map(_of_law, LAWS),
]
_ROW_COLUMNS: list[Column] = [
    ("updates", "{updates:,}"),
    _DATA,
    ("variance, one look-back", "{shared:.3g}"),
    ("variance, subset", "{subset:.3g}"),
    ("ratio", "{ratio[0]:.2f} ± {ratio[1]:.2f}"),
    ("windows in sequence, one look-back", "{chains[0]:.2f}"),
    ("windows in sequence, subset", "{chains[1]:.2f}"),
]


def notes(config: Any, text: Text, rows: Sequence[Row]) -> str:
    """Explains the first table, and adds those of the laws and of the rows."""
    laws = select(rows, part="laws")
    grouped = [
        laws[i] | {row["law"]: row for row in laws[i : i + len(LAWS)]}
        for i in range(0, len(laws), len(LAWS))
    ]
    return f"""\
{text.found.name}, LSTM with {config.hidden_size} units, {config.batch} rows, windows of \
{config.truncation_length} steps, Adam, one seed. Trained by unbiased TBPTT with c = \
{config.hazard:g}. Measured on the live state in {config.num_windows} windows, one every \
{config.every} updates, from the given number of updates on. Errors are in % of √(E ‖g‖²), the \
size of the gradient g of one window. This is its gradient through itself and \
{config.older_windows} older windows, all run with the present params, from a carry that these \
compute over {config.history} windows before.

- data: √(E ‖g − E g‖²). It is near 100 %, because updates follow the gradients: the mean of these \
along a training is small.
- truncation: the gradient through the window alone, minus g. TBPTT has this error.
- carry: the change of the gradient through the window alone because older params computed the \
carry that enters it. All estimators have this error.
- older windows: the change of the gradient through the older windows because older params ran \
them. Unbiased TBPTT has this error in place of truncation. Mean over look-backs.
- Each error e: of one window, √(E ‖e‖²); then of the mean, ‖E e‖ with its 95 % interval. Only the \
mean does not average out over updates.

## Laws at equal work

The exact variance over look-backs ÷ the variance of the data, both of one window, and its ratio \
to that of the optimal law ± half-width of the 95 % interval. W: the expected number of \
older windows. Frozen params of the training at learning rate {config.learning_rates[0]:g}. The \
optimal law was fitted on {config.num_windows} windows, and all laws were tested on \
{config.num_windows} others.

{markdown_table(grouped, _LAW_COLUMNS)}
## One look-back for all rows, or a subset of the rows

Exact variances as above, with c = {config.hazard:g}. Subset: a random subset of B·S(j) rows goes \
beyond edge j. Windows in sequence: windows backward of an update on average, one after another.

{markdown_table(select(rows, part="rows"), _ROW_COLUMNS)}"""


def make_figure(config: Any, text: Text, rows: Sequence[Row]) -> Figure:
    """Draws two panels: the errors, and the variances of the laws after the last update."""
    figure, (errors, laws) = new_figure(
        (12.6, 5.2),
        "Unbiased TBPTT: the error of older parameters, and laws at equal work",
        f"{text.found.name}, LSTM with {config.hidden_size} units, batch {config.batch}, "
        f"windows of {config.truncation_length} steps, trained with c = {config.hazard:g}.\n"
        "Left: ● error of one window, ▽ upper end of the 95 % interval of the mean error.",
        [(0.06, 0.135, 0.36, 0.65), (0.63, 0.135, 0.24, 0.65)],
    )
    _draw_errors(errors, select(rows, part="staleness"))
    _draw_laws(
        laws, [row for row in select(rows, part="laws") if row["updates"] == rows[-1]["updates"]]
    )
    return figure


def _draw_errors(axes: Axes, rows: Sequence[Row]) -> None:
    rows = sorted(rows, key=lambda row: (row["learning_rate"], row["updates"]))
    labels, places = [], np.arange(len(rows))
    for i, (name, words, color) in enumerate(zip(ERRORS, _WORDS, _COLOURS, strict=True)):
        at = places + 0.16 * (i - 1.5)
        one = [100 * row[name]["one_window"] for row in rows]
        most = [100 * row[name]["interval"][1] for row in rows]
        axes.plot(at, one, "o", color=color, markersize=7)
        axes.plot(at, most, "v", color=color, markersize=6, markerfacecolor="white")
        labels.append((one[-1], words.replace(", ", ",\n"), {"color": color}))
    axes.set(yscale="log", xlim=(-0.6, len(rows) - 0.4))
    axes.set_title("Error, % of one window's gradient", loc="left")
    plain_ticks(axes.yaxis, [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30])
    ticks = [f"{row['updates']:,}\n{row['learning_rate']:g}" for row in rows]
    axes.set_xticks(places, ticks, fontsize=9)
    axes.set_xlabel("updates, and learning rate")
    grid(axes, "y")
    label_ends(axes, labels, gap=0.11)


def _draw_laws(axes: Axes, rows: Sequence[Row]) -> None:
    labels, works = [], sorted({row["extra_work"] for row in rows})
    for name, color in zip(LAWS, _LAW_COLOURS, strict=True):
        variances = [100 * row["variance"] for row in select(rows, law=name)]
        axes.plot(works, variances, "o-", color=color)
        labels.append((variances[-1], name.replace(", ", ",\n"), {"color": color}))
    axes.set(xscale="log", yscale="log", xlabel="W, older windows an update")
    axes.set_title("Variance, % of that of the data", loc="left")
    plain_ticks(axes.xaxis, works, "{:.2g}")
    plain_ticks(axes.yaxis, [10.0**power for power in range(-6, 5)])
    grid(axes)
    label_ends(axes, labels, gap=0.11)
