"""The curve of one run: bits per character of both texts, by update and by epoch."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.common import figures
from experiments.common.arms import parse
from experiments.common.report import Row
from experiments.report import charts


def draw(rows: Sequence[Row], config: Any) -> Figure:
    """Two panels; the rows are those of the run's metrics.jsonl."""
    text = "Penn Treebank characters" if config.data.source == "ptb" else "Made-up text"
    figure, (left, right) = figures.new_figure(
        (11, 4.4),
        f"{text}: {parse(config.arm).label}",
        f"{config.model.cell} with {config.model.hidden_size} units, batch {config.batch}, "
        f"{config.optimizer.name} at {config.optimizer.learning_rate:g}, seed {config.seed}.",
        [(0.07, 0.13, 0.4, 0.65), (0.56, 0.13, 0.4, 0.65)],
    )
    charts.loss_by_update(rows).draw(left)
    charts.loss_by_epoch(rows).draw(right)
    return figure
