"""Line charts of a training, from the rows of its metrics.jsonl.

A function takes the rows and returns a `Chart`, without lines where the rows have none of its
numbers.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from experiments.common import figures
from experiments.common.figures import COLOURS
from experiments.common.report import Row

_BLUE, _GREEN, _SKY, _VERMILLION, _ORANGE, _PINK, _BLACK, _GREY = COLOURS
_LEGEND_COLUMNS = 2
_BIAS_COLOURS = (_ORANGE, _VERMILLION, _PINK, _GREEN)


class Line(NamedTuple):
    """A line of a chart, or single points."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float | None]  # None: not finite
    color: str
    style: str = "-"

    def ends(self) -> str:
        """The first and the last number, in words."""
        finite = [y for y in self.ys if y is not None]
        return f"{self.label} from {finite[0]:.3g} to {finite[-1]:.3g}" if finite else self.label


class Chart(NamedTuple):
    """A line chart, and the words about it.

    Attributes:
        title, note: the heading, and a sentence of explanation.
        x, y: the labels of the axes.
        scale: of y: "linear" shows the range of the numbers, "zero" begins at 0, and "log" is
            logarithmic where the numbers differ by more than a factor of 10, else as "zero".
    """

    title: str
    note: str
    x: str
    y: str
    lines: Sequence[Line]
    scale: str = "linear"

    def alt(self) -> str:
        """What the chart shows, for those who do not see it."""
        lines = "; ".join(line.ends() for line in self.lines[:6])
        more = f"; {len(self.lines) - 6} more lines" * (len(self.lines) > 6)
        return f"{self.title}. {self.y} by {self.x}: {lines}{more}."

    def draw(self, axes: Axes) -> None:
        """Draws the lines, their legend above them, and the axes."""
        for line in self.lines:
            ys = np.array(line.ys, float)  # NaN for None
            marker = "o" if line.style == "" or np.isfinite(ys).sum() < 20 else ""
            pen: dict[str, Any] = {
                "color": line.color,
                "linestyle": line.style,
                "label": line.label,
            }
            axes.plot(line.xs, ys, marker=marker, markersize=4, linewidth=1.5, **pen)
        axes.set(xlabel=self.x, ylabel=self.y)
        self._scale(axes)
        figures.grid(axes)
        if len({line.label for line in self.lines}) > 1:
            unique = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
            axes.legend(
                unique.values(),
                unique.keys(),
                loc="lower left",
                bbox_to_anchor=(-0.02, 1.0),
                ncols=_LEGEND_COLUMNS,
                frameon=False,
                fontsize=8.5,
            )

    def _scale(self, axes: Axes) -> None:
        if self.x == "epoch" or self.x.startswith("k, "):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        found = [y for line in self.lines for y in line.ys if y is not None]
        wide = bool(found) and min(found) > 0 and max(found) > 10 * min(found)
        if self.scale == "log" and wide:
            axes.set_yscale("log")
        elif self.scale != "linear":
            axes.set_ylim(0, 1.05 * max(found, default=1.0))
            if max(found, default=0) >= 10_000:
                axes.yaxis.set_major_formatter(EngFormatter(sep=""))  # 20k

    def svg(self) -> str:
        """The chart as a small SVG document with a transparent background and text as text."""
        with matplotlib.rc_context(figures.STYLE | {"svg.fonttype": "none"}):
            figure = Figure(figsize=(4.6, 3.0))
            # Fixed margins: a layout that measures all texts takes twice as long as the drawing.
            labels = len({line.label for line in self.lines})
            legend_rows = math.ceil(labels / _LEGEND_COLUMNS) if labels > 1 else 0
            self.draw(figure.add_axes((0.16, 0.16, 0.81, 0.8 - 0.07 * legend_rows)))
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        return buffer.getvalue()


def of_training(rows: Sequence[Row]) -> list[Chart]:
    """The charts of a training for which the rows hold numbers."""
    makers: list[Callable[[Sequence[Row]], Chart]] = [
        *(loss_by_update, loss_by_epoch, lengths, look_backs, weights),
        *(errors, gradient_norm, throughput),
    ]
    return [chart for make in makers if (chart := make(rows)).lines]


def loss_by_update(rows: Sequence[Row]) -> Chart:
    """Bits of the training text for each row of metrics, and of the validation text."""
    lines = [
        *line(rows, "train", "bits", "training", _BLUE),
        *line(rows, "evaluation", "valid_bpc", "validation", _VERMILLION),
    ]
    note = "Training: mean over the updates of a row of metrics, as they were made."
    return Chart("Loss by update", note, "update", "bits per character", lines)


def loss_by_epoch(rows: Sequence[Row]) -> Chart:
    """Bits of both texts for each epoch."""
    lines = [
        *line(rows, "evaluation", "train_bits", "training", _BLUE, x="epoch"),
        *line(rows, "evaluation", "valid_bpc", "validation", _VERMILLION, x="epoch"),
    ]
    note = "Training: mean over the epoch, with the parameters of each moment."
    return Chart("Loss by epoch", note, "epoch", "bits per character", lines)


def lengths(rows: Sequence[Row]) -> Chart:
    """Mean and longest segment of each row."""
    lines = [
        *line(rows, "train", "max_length", "longest", _SKY),
        *line(rows, "train", "mean_length", "mean", _BLUE),
    ]
    note = "Of the updates of a row of metrics."
    return Chart("Segment lengths", note, "update", "time steps", lines, "log")


def look_backs(rows: Sequence[Row]) -> Chart:
    """Mean and longest look-back of each row, of an estimator that has any."""
    lines = [
        *line(rows, "train", "max_look_back", "longest", _SKY),
        *line(rows, "train", "mean_look_back", "mean", _BLUE),
    ]
    note = "Windows that an update went back through, its own included."
    return Chart("Look-backs", note, "update", "windows", lines, "zero")


def weights(rows: Sequence[Row]) -> Chart:
    """The largest product of compensations in each row."""
    lines = line(rows, "train", "max_weight", "largest weight", _BLUE)
    note = "The largest product of the factors 1/(1 − c) on the gradient; 1 without compensation."
    return Chart("Weights", note, "update", "weight", lines, "log")


def errors(rows: Sequence[Row]) -> Chart:
    """The errors that `artbp.diagnostics.shadow` measured."""
    found = next((row for row in rows if row["kind"] == "measurement"), {})
    names = [name for name in found if name.startswith("bias_")]
    lines: list[Line] = []
    for i, name in enumerate(sorted(names, key=lambda name: int(name.removeprefix("bias_")))):
        color = _BIAS_COLOURS[i % len(_BIAS_COLOURS)]
        words = f"TBPTT {name.removeprefix('bias_')}"
        lines += line(rows, "measurement", name, words, color)
    lines += line(rows, "measurement", "artbp_noise", "noise of ARTBP", _BLUE)
    lines += line(rows, "measurement", "carry_error", "carry of older parameters", _GREY)
    note = "Error of the gradient of one window ÷ its norm. Errors of single windows include noise."
    return Chart("Bias monitor", note, "update", "relative error", lines, "log")


def gradient_norm(rows: Sequence[Row]) -> Chart:
    """The largest norm in each row."""
    lines = line(rows, "train", "max_gradient_norm", "largest norm", _BLUE)
    note = "The largest of the updates of a row of metrics, before clipping."
    return Chart("Gradient norm", note, "update", "norm", lines, "log")


def throughput(rows: Sequence[Row]) -> Chart:
    """Time steps per second."""
    lines = line(rows, "train", "steps_per_second", "time steps per second", _GREEN)
    note = "Time steps of the whole batch. The first row includes compilation."
    return Chart("Throughput", note, "update", "time steps per second", lines, "zero")


def law(words: str, unit: str, survival: Sequence[float]) -> Chart:
    """How probable lengths above k are; `survival` is that for k = 1, 2, …."""
    ks = range(1, len(survival) + 1)
    shown = [p if p > 0 else None for p in map(float, survival)]
    lines = [Line(f"P({unit} > k)", ks, shown, _BLUE)] if math.isfinite(survival[0]) else []
    note = "P(length > k). With compensation, a flow through k gates has the weight 1 ÷ this."
    return Chart(f"Law of the {words}", note, f"k, {unit}", "probability", lines, "log")


def line(
    rows: Sequence[Row], kind: str, field: str, label: str, color: str, x: str = "update"
) -> list[Line]:
    """The numbers of this field in the rows of this kind; no line where there are none."""
    found = [row | row.get("time", {}) for row in rows if row["kind"] == kind]
    found = [row for row in found if row.get(field) is not None]
    if not found:
        return []
    return [Line(label, [row[x] for row in found], [row[field] for row in found], color)]
