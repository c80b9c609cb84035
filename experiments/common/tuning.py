"""Chooses a learning rate, by one rule for every experiment.

    tuning, reported = split(run_keys(config), config)
    losses = [[train(rate, key) for rate in rates] for key in tuning]
    choice = choose_rate(rates, losses)
    results = [train(choice.rate, key) for key in reported]

The rule is to take the rate with the smallest mean loss over the tuning runs. A rate with a tuning
run that does not end with a finite loss is never chosen. Runs that choose the rate are not
reported, because the smallest of several noisy losses is below the loss of this rate on new runs.
"""

from typing import Any, NamedTuple

import jax
import numpy as np


class Choice(NamedTuple):
    """The chosen rate.

    Attributes:
        rate: the smallest of the grid where no rate gave finite losses.
        index: its place in the grid.
        at_edge: whether it is the smallest or the largest, so that a better one may lie outside.
        scores: mean loss of each rate of the grid, infinite where a run was not finite.
    """

    rate: float
    index: int
    at_edge: bool
    scores: tuple[float, ...]

    @property
    def failed(self) -> bool:
        """Whether every rate of the grid had a run that was not finite."""
        return not np.isfinite(self.scores[self.index])

    @property
    def warning(self) -> str:
        """What to print beside the rate: empty unless it is at the edge of the grid."""
        if self.failed:
            return " (no rate of the grid gives finite losses)"
        return " (at the edge of the grid: a better rate may lie outside)" * self.at_edge


def choose_rate(rates: Any, losses: Any) -> Choice:
    """Returns the rate of the grid with the smallest mean of `losses`, [runs, rates]."""
    losses = np.asarray(losses, np.float64)
    assert losses.shape[1:] == (len(rates),), f"{losses.shape} for {len(rates)} rates"
    with np.errstate(over="ignore", invalid="ignore"):
        means = losses.mean(axis=0)
    scores = np.where(np.isfinite(means), means, np.inf)
    index = int(np.argmin(scores)) if np.isfinite(scores).any() else int(np.argmin(rates))
    rate = float(rates[index])
    at_edge = rate in (min(rates), max(rates))
    return Choice(rate, index, at_edge, tuple(scores.tolist()))


def rates_text(config: Any) -> str:
    """Returns the learning rates that were tried, as in "0.001, 0.003"."""
    return ", ".join(f"{rate:g}" for rate in config.learning_rates)


def rate_text(rate: float, at_edge: bool) -> str:
    r"""Formats a rate as all tables show it, with \* where it is at the edge of the grid."""
    return f"{rate:g}" + "\\*" * at_edge


def run_keys(config: Any) -> jax.Array:
    """Returns a key for each run: `num_tuning_runs` to tune on, then `num_seeds` to report."""
    return jax.random.split(jax.random.key(config.seed), config.num_tuning_runs + config.num_seeds)


def split(runs: Any, config: Any) -> tuple[Any, Any]:
    """Splits runs in the order of `run_keys` into (those to tune on, those to report)."""
    return runs[: config.num_tuning_runs], runs[config.num_tuning_runs :]
