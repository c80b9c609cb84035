"""Writes what an experiment returns: `table.md`, `results.json`, `metrics.jsonl`, figures.

    Report(table(rows, columns, note), rows, {"memory": figure})

Each file is written whole or not at all, `results.json` last.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from artbp.diagnostics.interval import student_t_quantile
from experiments.common import figures
from experiments.common.metrics import as_line, without_nonfinite
from experiments.common.workdir import write_atomically

Row = dict[str, Any]
# A heading of the table, and the text of its cells: a format such as "{learning_rate:g}", which is
# filled with the fields of the row, or a function of the row.
Column = tuple[str, str | Callable[[Row], str]]


class Report(NamedTuple):
    """The results of an experiment: tables and notes as Markdown, rows, and figures by file name.

    Attributes:
        curves: further rows for `metrics.jsonl`, each with its "kind".
        environment: what the command needs before it, such as "ARTBP_DATA_DIR=FOLDER ".
        indent: of the JSON; None for one line.
    """

    text: str
    rows: Sequence[Row]
    figures: Mapping[str, Figure] = {}
    curves: Sequence[Row] = ()
    environment: str = ""
    indent: int | None = 2

    def write(self, folder: Path, name: str) -> str:
        """Writes all files of the experiment `name`, and returns the text of `table.md`."""
        metrics = (*self.curves, *({"kind": "result"} | row for row in self.rows))
        write_atomically(folder / "metrics.jsonl", "".join(map(as_line, metrics)))
        for file_name, figure in self.figures.items():
            figures.save(figure, folder / f"{file_name}.png")
        command = f"`{self.environment}python -m experiments.{name}`"
        text = f"{self.text.rstrip()}\n\nMade by {command} with the configuration in config.json.\n"
        write_text_and_rows(folder, text, self.rows, indent=self.indent)
        return text


def table(rows: Sequence[Row], columns: Sequence[Column], note: str) -> str:
    """Formats the rows as a Markdown table, with the note under it."""
    return f"{markdown_table(rows, columns)}\n{note}\n"


def select(rows: Sequence[Row], **fields: Any) -> list[Row]:
    """Returns the rows with these values, such as `select(rows, part="training")`."""
    return [row for row in rows if all(row[name] == value for name, value in fields.items())]


def interval(values: Any, level: float = 0.95) -> tuple[float, float]:
    """Returns the mean and the half-width of its interval by Student's t, NaN for one value."""
    mean, number = float(np.mean(values)), len(values)
    if number < 2:
        return mean, float("nan")
    spread = np.std(values, ddof=1) / np.sqrt(number)
    return mean, float(student_t_quantile(level, number - 1) * spread)


def mean_and_deviation(values: Any, form: str = "{:.3f}") -> str:
    """Formats the mean and the standard deviation over seeds: `0.512 ± 0.031`.

    If a value is not finite, there is no mean, and the number of these runs is given.
    """
    if diverged := int(np.sum(~np.isfinite(values))):
        return f"not finite in {diverged} of {len(values)} runs"
    return f"{form.format(np.mean(values))} ± {form.format(np.std(values, ddof=1))}"


def median_and_range(
    values: Sequence[float], form: str = "{:.3g}", *, worst: float = np.inf
) -> str:
    """Formats median, smallest and largest, or the one value: `0.51 [0.48, 0.55]`.

    NaN counts as `worst`: ∞, or −∞ where larger values are better.
    """
    ordered = np.where(np.isnan(values), worst, values)
    numbers = (np.median(ordered), min(ordered), max(ordered))
    middle, low, high = (
        form.format(n) if np.isfinite(n) else ("−∞" if n < 0 else "∞") for n in numbers
    )
    if len(values) == 1:
        return middle
    return f"{middle} [{low}, {high}]"


def quartiles(values: np.ndarray, axis: int = 0) -> tuple[Any, Any, Any]:
    """Returns lower quartile, median and upper quartile, with NaN counted as infinity.

    Each is one of the values, because there is no midpoint between a number and infinity.
    """
    ordered = np.where(np.isnan(values), np.inf, values)
    result = np.quantile(ordered, (0.25, 0.5, 0.75), axis=axis, method="nearest")
    return tuple(part.item() if part.ndim == 0 else part for part in result)


def markdown_table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Formats the rows under the headings of `columns`."""
    lines = [[heading for heading, _ in columns], ["---"] * len(columns)]
    for row in rows:
        cells = (cell for _, cell in columns)
        lines.append([c.format_map(row) if isinstance(c, str) else c(row) for c in cells])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def write_text_and_rows(
    folder: Path, text: str, rows: Sequence[Row], *, indent: int | None = 2
) -> None:
    """Writes the text as `table.md`, and last of all the rows as `results.json`.

    JSON has neither NaN nor infinity: null. `indent`: of the JSON; None for one line.
    """
    write_atomically(folder / "table.md", text)
    values = without_nonfinite(rows)
    numbers = json.dumps(values, indent=indent, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / "results.json", numbers + "\n")
