"""Results as a Markdown table and as JSON, written whole or not at all."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common.metrics import without_nonfinite
from experiments.common.workdir import write_atomically

Row = dict[str, Any]
# A heading of the table, and the text of its cell.
Column = tuple[str, Callable[[Row], str]]


def quartiles(values: np.ndarray, axis: int = 0) -> tuple[Any, Any, Any]:
    """Lower quartile, median, upper quartile: values that occur, NaN counted as infinity.

    "Values that occur", because halfway between a number and infinity there is nothing.
    """
    ordered = np.where(np.isnan(values), np.inf, values)
    result = np.quantile(ordered, (0.25, 0.5, 0.75), axis=axis, method="nearest")
    return tuple(part.item() if part.ndim == 0 else part for part in result)


def markdown_table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """The rows under the headings of `columns`, as a Markdown table."""
    lines = [[heading for heading, _ in columns], ["---"] * len(columns)]
    lines += [[cell(row) for _, cell in columns] for row in rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def write_results(folder: Path, rows: Sequence[Row], columns: Sequence[Column], note: str) -> str:
    """Writes `table.md`, and last of all `results.json`: a list, one object per row of the table.

    Returns:
        The table, with the note under it.
    """
    table = f"{markdown_table(rows, columns)}\n{note}\n"
    write_text_and_rows(folder, table, rows)
    return table


def write_text_and_rows(
    folder: Path, text: str, rows: Sequence[Row], *, indent: int | None = 2
) -> None:
    """Writes the text as `table.md`, and last of all the rows as `results.json`.

    JSON has neither NaN nor infinity: null. `indent`: of the JSON; None for one line.
    """
    write_atomically(folder / "table.md", text)
    numbers = json.dumps(
        without_nonfinite(rows), indent=indent, ensure_ascii=False, allow_nan=False
    )
    write_atomically(folder / "results.json", numbers + "\n")
