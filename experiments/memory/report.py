"""Makes the tables and the figure: accuracy at each lag for each arm, in both kinds of training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.common.arms import Arm
from experiments.common.figures import colors, grid, ink, new_figure, plain_ticks
from experiments.common.report import Column, Row, markdown_table, mean_and_deviation
from experiments.common.tuning import rate_text, rates_text
from experiments.memory.training import CHANCE, Result

HALFWAY = (1 + CHANCE) / 2


def make_rows(config: Any, results: Sequence[Result]) -> list[Row]:
    """Makes one row for each arm, with the accuracies of every seed."""
    rows = []
    for arm, choices, accuracy in results:
        # On the loss at every lag, and on one lag alone: at each lag its own training.
        every_lag = accuracy[:, 0]
        own_lag = np.stack([accuracy[:, 1 + i, lag] for i, lag in enumerate(config.lags)], axis=1)
        row: Row = {"arm": arm.text, "label": arm.label, "length": arm.length}
        row |= {"num_seeds": config.num_seeds, "lags": list(config.lags)}
        # First those of the loss at every lag, then those of one lag alone.
        row["learning_rates"] = [choice.rate for choice in choices]
        row["rates_at_edge"] = [choice.at_edge for choice in choices]
        # [rates, trainings]
        row["tuning_loss"] = np.transpose([choice.scores for choice in choices]).tolist()
        row["accuracy_every_lag"] = np.round(every_lag, 5).tolist()
        row["accuracy_own_lag"] = np.round(own_lag, 5).tolist()
        # At every lag, after training on the first of `lags` alone.
        row["accuracy_first_lag"] = np.round(accuracy[:, 1], 5).tolist()
        row["reach_every_lag"] = reach(every_lag.mean(0)[1:], range(1, config.episode_length))
        rows.append(row | {"reach_own_lag": reach(own_lag.mean(0), config.lags)})
    return rows


def reach(accuracy: np.ndarray, lags: Sequence[int]) -> int:
    """Returns the last lag up to which the accuracy is above halfway from chance to 1; 0: none."""
    count = int(np.append(~(accuracy > HALFWAY), True).argmax())  # NaN is not above it either
    return int(lags[count - 1]) if count else 0


def columns(config: Any, training: str) -> list[Column]:
    """Returns the columns for "every_lag", or "own_lag", where each lag has its own training."""
    all_lags = training == "every_lag"

    def at(i: int) -> Column:
        def text(row: Row) -> str:
            accuracy = 100 * np.array(row[f"accuracy_{training}"])
            return mean_and_deviation(accuracy[:, config.lags[i] if all_lags else i], "{:.1f}")

        return f"lag {config.lags[i]}", text

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
{rates_text(config)} by the \
loss of {config.num_tuning_runs} runs that are not reported (\\*: at the edge of the \
grid). All arms see as many time steps; updates come every k2 steps.

Below: each lag has a training of its own, on the loss at that lag alone.

{markdown_table(rows, columns(config, "own_lag"))}
Trained on the loss at lag {config.lags[0]} alone, accuracy at lag {longest} in %: {farther}."""


def make_figure(config: Any, arms: Sequence[Arm], rows: Sequence[Row]) -> Figure:
    """Draws two panels and a key between them; `rows` are those of the table, one for each arm."""
    figure, panels = new_figure(
        (12.4, 5.2),
        "How far the state remembers, where the gradient looks back k2 steps",
        f"LSTM with {config.hidden_size} units: one of 4 items, then distractors. Mean of "
        f"{config.num_seeds} seeds, with the lowest and the highest. Diamond: lag k2, the first "
        "that the gradient does not reach.",
        [(0.058, 0.115, 0.37, 0.66), (0.608, 0.115, 0.37, 0.66)],
    )
    left, right = panels
    left.set_title("Trained on the loss at every lag", loc="left")
    right.set_title("Trained on the loss at that lag alone", loc="left")
    every, own = np.arange(1, config.episode_length), np.array(config.lags)
    # Broad below, narrow above: lines that lie on each other can all be seen.
    widths = np.linspace(7.0, 2.0, len(arms))
    # A little to the left or right, so that bars at the same lag stand side by side.
    shifts = np.linspace(0.96, 1.04, len(arms))
    for i, (arm, color) in enumerate(colors(arms).items()):
        alone = arm.name == "readout_alone"
        pen: dict[str, Any] = {"color": color, "linestyle": (0, (4, 2)) if alone else "-"}
        every_lag = np.array(rows[i]["accuracy_every_lag"])[:, 1:]
        left.plot(every, every_lag.mean(0), linewidth=2 if alone else widths[i], **pen)
        left.fill_between(every, every_lag.min(0), every_lag.max(0), color=color, alpha=0.15, lw=0)
        own_lag, lags = np.array(rows[i]["accuracy_own_lag"]), shifts[i] * own
        right.plot(lags, own_lag.mean(0), marker=".", linewidth=2, **pen)
        right.vlines(lags, own_lag.min(0), own_lag.max(0), color=color, linewidth=1.2)
        for axes, xs, accuracy in ((left, every, every_lag), (right, lags, own_lag)):
            if arm.name == "tbptt" and xs[0] <= arm.length <= xs[-1]:
                height = np.interp(np.log(arm.length), np.log(xs), accuracy.mean(0))
                diamond: Any = {"marker": "D", "markersize": 9, "markeredgecolor": "black"}
                axes.plot(arm.length, height, color=color, zorder=5, **diamond)
        place = 0.70 - 0.065 * i
        figure.add_artist(Line2D((0.436, 0.452), [place] * 2, linewidth=2, **pen))
        words: Any = {"fontweight": "bold", "fontsize": 9, "va": "center"}
        figure.text(0.459, place, arm.label, color=ink(color), **words)
    for axes in panels:
        axes.set(xscale="log", xlabel="lag d in steps", ylabel="test accuracy")
        axes.set(xlim=(0.93, config.episode_length * 1.05), ylim=(0.15, 1.03))
        axes.axhline(CHANCE, color="0.45", linewidth=1, linestyle=(0, (1, 2)))
        axes.text(1, CHANCE - 0.012, f"chance, {CHANCE:.0%}", va="top", color="0.3", fontsize=9)
        plain_ticks(axes.xaxis, [1, 2, 4, 8, 16, 32, 64])
        plain_ticks(axes.yaxis, [0.2, 0.4, 0.6, 0.8, 1.0], "{:.0%}")
        grid(axes)
    together = coinciding(rows)
    if len(together) > 1:
        lowest = min(np.mean(row["accuracy_every_lag"], axis=0)[1:].min() for row in together)
        height = "100%" if lowest == 1 else f"{np.floor(1000 * lowest) / 10:g}% or more"
        text = f"{len(together)} lines on one another,\nat {height} at every lag:\n"
        text += "\n".join(row["label"] for row in together)
        left.text(1, 0.955, text, va="top", color="0.3", fontsize=9, linespacing=1.4)
    return figure


def coinciding(rows: Sequence[Row]) -> list[Row]:
    """Returns the arms with a mean accuracy of at least 99 % at every lag from 1 on."""
    return [row for row in rows if np.mean(row["accuracy_every_lag"], axis=0)[1:].min() >= 0.99]
