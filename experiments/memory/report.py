"""Makes the tables of the accuracy at each lag for each arm, in both kinds of training."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common.report import Column, Row, markdown_table, mean_and_deviation
from experiments.common.tuning import rate_text
from experiments.memory.episodes import CHANCE
from experiments.memory.training import Result

HALFWAY = (1 + CHANCE) / 2


def make_rows(config: Any, results: Sequence[Result]) -> list[Row]:
    """Makes one row for each arm, with the accuracies of every seed."""
    rows = []
    for arm, choices, accuracy in results:
        # On the loss at every lag, and on one lag alone: at each lag its own training.
        every_lag = accuracy[:, 0]
        own_lag = np.stack([accuracy[:, 1 + i, lag] for i, lag in enumerate(config.lags)], axis=1)
        rows.append(
            {
                "arm": arm.text,
                "label": arm.label,
                "length": arm.length,
                "num_seeds": config.num_seeds,
                "lags": list(config.lags),
                # First those of the loss at every lag, then those of one lag alone.
                "learning_rates": [choice.rate for choice in choices],
                "rates_at_edge": [choice.at_edge for choice in choices],
                # [rates, trainings]
                "tuning_loss": np.transpose([choice.scores for choice in choices]).tolist(),
                "accuracy_every_lag": np.round(every_lag, 5).tolist(),
                "accuracy_own_lag": np.round(own_lag, 5).tolist(),
                # At every lag, after training on the first of `lags` alone.
                "accuracy_first_lag": np.round(accuracy[:, 1], 5).tolist(),
                "reach_every_lag": reach(every_lag.mean(0)[1:], range(1, config.episode_length)),
                "reach_own_lag": reach(own_lag.mean(0), config.lags),
            }
        )
    return rows


def reach(accuracy: np.ndarray, lags: Sequence[int]) -> int:
    """Returns the last lag up to which the accuracy is above halfway from chance to 1; 0: none."""
    low = np.flatnonzero(accuracy <= HALFWAY)
    count = int(low[0]) if len(low) else len(lags)
    return int(lags[count - 1]) if count else 0


def columns(config: Any, training: str) -> list[Column]:
    """Returns the columns for "every_lag", or "own_lag", where each lag has its own training."""
    all_lags = training == "every_lag"

    def at(i: int) -> Column:
        place = config.lags[i] if all_lags else i
        return (
            f"lag {config.lags[i]}",
            lambda row: mean_and_deviation(
                [100 * seed[place] for seed in row[f"accuracy_{training}"]], "{:.1f}"
            ),
        )

    def rates(row: Row) -> str:
        first, *rest = map(rate_text, row["learning_rates"], row["rates_at_edge"])
        return first if all_lags else ", ".join(rest)

    return [
        ("estimator", "{label}"),
        ("learning rate", rates),
        *map(at, range(len(config.lags))),
        (f"above {HALFWAY:.1%} up to lag", f"{{reach_{training}}}"),
    ]


def notes(config: Any, rows: Sequence[Row]) -> str:
    """Explains the table, and adds the second one: trained on one lag alone."""
    longest = config.lags[-1]
    farther = ", ".join(
        f"{row['label']} {100 * np.array(row['accuracy_first_lag'])[:, longest].mean():.1f}"
        for row in rows
    )
    return f"""\
Above: trained on the loss at every lag. Test accuracy in %, mean ± standard deviation of \
{config.num_seeds} seeds; chance is {CHANCE:.0%}. One of 4 items is shown, distractors follow, \
and the network must name the item. LSTM with {config.hidden_size} units, batch {config.batch}, \
{config.num_episodes} episodes of {config.episode_length} steps; each begins with the initial \
carry. TBPTT k2 cuts at multiples of k2 in an episode: the gradient of a loss at lag d \
reaches the item for d < k2, and never for d ≥ k2. Full BPTT: k2 = {config.episode_length}. \
"Readout alone": the recurrent weights stay at their initial values. Tested on \
{config.test_episodes * config.batch:,} episodes a seed. Adam, learning rate the best of \
{", ".join(f"{rate:g}" for rate in config.learning_rates)} by the \
loss of {config.num_tuning_runs} runs that are not reported (\\*: at the edge of the \
grid). All arms see as many time steps; updates come every k2 steps.

Below: each lag has a training of its own, on the loss at that lag alone.

{markdown_table(rows, columns(config, "own_lag"))}
Trained on the loss at lag {config.lags[0]} alone, accuracy at lag {longest} in %: {farther}."""
