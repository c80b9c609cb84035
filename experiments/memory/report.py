"""The tables: accuracy at each lag for each arm, in both kinds of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common.report import Column, Row, markdown_table, mean_and_deviation
from experiments.common.tuning import rate_text
from experiments.memory.episodes import CHANCE
from experiments.memory.training import Result

# The loss counts at every lag, or at one lag alone, a training for each.
TRAININGS = ("every_lag", "own_lag")
HALFWAY = (1 + CHANCE) / 2


def words(config: Any, result: Result) -> str:
    """A line of progress."""
    last = config.lags[-1]
    return (
        f"{result.arm.label}: accuracy at lag {last} {result.accuracy[:, 0, last].mean():.1%}, "
        f"trained on it alone {result.own_lag(config.lags)[:, -1].mean():.1%}"
    )


def make_rows(config: Any, results: Sequence[Result]) -> list[Row]:
    """One row for each arm; accuracies of every seed."""
    rows = []
    for result in results:
        every_lag, own_lag = result.accuracy[:, 0], result.own_lag(config.lags)
        rows.append(
            {
                "arm": result.arm.text,
                "label": result.arm.label,
                "length": result.arm.length,
                "num_seeds": config.num_seeds,
                "lags": list(config.lags),
                # First those of the loss at every lag, then those of one lag alone.
                "learning_rates": [choice.rate for choice in result.choices],
                "rates_at_edge": [choice.at_edge for choice in result.choices],
                # [rates, trainings]
                "tuning_loss": np.transpose([c.scores for c in result.choices]).tolist(),
                "accuracy_every_lag": np.round(every_lag, 5).tolist(),
                "accuracy_own_lag": np.round(own_lag, 5).tolist(),
                # At every lag, after training on the first of `lags` alone.
                "accuracy_first_lag": np.round(result.accuracy[:, 1], 5).tolist(),
                "reach_every_lag": reach(every_lag.mean(0)[1:], range(1, config.episode_length)),
                "reach_own_lag": reach(own_lag.mean(0), config.lags),
            }
        )
    return rows


def reach(accuracy: np.ndarray, lags: Sequence[int]) -> int:
    """The last lag up to which the accuracy stays above halfway between chance and 1; 0: none."""
    low = np.flatnonzero(accuracy <= HALFWAY)
    count = int(low[0]) if len(low) else len(lags)
    return int(lags[count - 1]) if count else 0


def columns(config: Any, training: str) -> list[Column]:
    """The columns of one of `TRAININGS`."""

    def cell(i: int, lag: int) -> Column:
        def text(row: Row) -> str:
            values = 100 * np.array(row[f"accuracy_{training}"])
            chosen = values[:, lag if training == "every_lag" else i]
            return mean_and_deviation(chosen, "{:.1f}")

        return f"lag {lag}", text

    def rates(row: Row) -> str:
        first, *rest = map(rate_text, row["learning_rates"], row["rates_at_edge"])
        return first if training == "every_lag" else ", ".join(rest)

    return [
        ("method", "{label}"),
        ("learning rate", rates),
        *(cell(i, lag) for i, lag in enumerate(config.lags)),
        (f"above {HALFWAY:.1%} up to lag", lambda row: str(row[f"reach_{training}"])),
    ]


def notes(config: Any, rows: Sequence[Row]) -> str:
    """What is in the table, and the second one: trained on one lag alone."""
    longest = config.lags[-1]
    farther = ", ".join(
        f"{row['label']} {100 * np.array(row['accuracy_first_lag'])[:, longest].mean():.1f}"
        for row in rows
    )
    return f"""\
Above: trained on the loss at every lag. Test accuracy in %, mean ± standard deviation of \
{config.num_seeds} seeds; chance is {CHANCE:.0%}. One of 4 items is shown, distractors follow, \
and the item is to be named. LSTM with {config.hidden_size} units, batch {config.batch}, \
{config.num_episodes} episodes of {config.episode_length} steps; each begins with the initial \
carry. TBPTT k2 cuts at multiples of k2 in an episode: the gradient of a loss at lag d \
reaches the item for d < k2, and never for d ≥ k2. Full BPTT: k2 = {config.episode_length}. \
"Readout alone": the recurrent weights stay as they were drawn. Tested on \
{config.test_episodes * config.batch:,} episodes a seed. Adam, learning rate the best of \
{", ".join(f"{rate:g}" for rate in config.learning_rates)} by the \
loss of {config.num_tuning_runs} runs that are not reported (\\*: at the edge of the \
grid). All methods see as many time steps; updates come every k2 steps.

Below: each lag has a training of its own, on the loss at that lag alone.

{markdown_table(rows, columns(config, "own_lag"))}
Trained on the loss at lag {config.lags[0]} alone, accuracy at lag {longest} in %: {farther}."""
