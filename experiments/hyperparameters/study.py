"""Both parts on each problem: everything that the tables and the figure are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.common.report import Row
from experiments.hyperparameters import landscape, problems, signs, training


def run(config: Any, say: Callable[[str], None]) -> list[Row]:
    """Rows of the parts "landscape", "signs" and "training"; expects JAX's float64 to be on."""
    rows = []
    for name in config.problems:
        problem = problems.make(name, config)
        tried = landscape.make(config, problem)
        rows.append(landscape.row(problem, tried))
        say(f"{name}: grid of rates tried")
        rows += signs.run(config, problem, tried)
        say(f"{name}: signs measured")
        rows += training.run(config, problem, tried, say)
    return rows
