"""Makes one row for each arm, their table and notes, and the figure: the modes and the sweeps."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.common.arms import tbptt_k1_k2
from experiments.common.figures import COLOURS, grid, new_figure, plain_ticks
from experiments.common.report import Column, Row, interval, markdown_table, mean_and_deviation
from experiments.common.tuning import rate_text, rates_text
from experiments.k1k2.training import Runs, bin_edges

MODE_WORDS = {
    "stored": "stored carries, current weights",
    "past_weights": "stored carries, past weights",
    "reforward": "window run again",
}


# Broad below, narrow and dashed above: curves that lie on each other can all be seen.
_PEN_OF: dict[str, dict[str, Any]] = {
    "stored": {"color": COLOURS[0], "linewidth": 5.0, "alpha": 0.45},
    "past_weights": {"color": COLOURS[4], "linewidth": 2.2},
    "reforward": {"color": COLOURS[3], "linewidth": 1.6, "linestyle": (0, (3, 2))},
}


def by_arm(rows: Sequence[Row]) -> dict[tuple[int, int, str], Row]:
    """Indexes the rows by k1, k2 and mode."""
    return {(row["k1"], row["k2"], row["mode"]): row for row in rows}


def make_rows(config: Any, text: str, trained: Sequence[Runs], seconds: np.ndarray) -> list[Row]:
    """Makes one row for each arm; `seconds` per update are [rounds, arms]."""
    base = [runs.arm for runs in trained].index(tbptt_k1_k2(config.k1, config.k2))
    # Ratios within a round, where what slows the machine slows every arm; and their medians.
    ratios = np.median(seconds / seconds[:, [base]], axis=0)
    per_update = ratios * np.median(seconds[:, base])
    totals = per_update * [runs.num_updates for runs in trained]
    tenth = max(config.num_bins // 10, 1)
    rates = [f"{rate:g}" for rate in config.learning_rates]
    rows = []
    for i, runs in enumerate(trained):
        difference, half_width = interval(runs.last_quarter - trained[base].last_quarter)
        early = runs.curves[:, :tenth].mean(1) - trained[base].curves[:, :tenth].mean(1)
        # The bin of the curve that the fastest arm's whole time falls into.
        bin_then = min(int(totals.min() / totals[i] * config.num_bins), config.num_bins - 1)
        row: Row = {"text": text}
        row |= {name: runs.arm.arguments[name] for name in ("k1", "k2", "mode")}
        row |= {"learning_rate": runs.choice.rate, "rate_at_edge": runs.choice.at_edge}
        row["tuning_bits"] = dict(zip(rates, runs.choice.scores, strict=True))
        row["last_quarter_bits"] = runs.last_quarter.tolist()
        row["held_out_bits"] = runs.held_out.tolist()
        row["curve_bits"] = np.round(runs.curves.mean(0), 4).tolist()
        row |= {"difference": difference, "difference_half_width": half_width}
        row |= {"early_difference": interval(early), "num_updates": runs.num_updates}
        row |= {"seconds_per_update": float(per_update[i]), "time_ratio": float(ratios[i])}
        row |= {"seconds": float(totals[i]), "equal_time_seconds": float(totals.min())}
        rows.append(row | {"equal_time_bits": float(runs.curves[:, bin_then].mean())})
    return rows


def columns(config: Any) -> list[Column]:
    """Returns the columns of the table."""
    base = f"TBPTT({config.k1}, {config.k2}), stored"
    return [
        ("k1", "{k1}"),
        ("k2", "{k2}"),
        ("mode", "{mode}"),
        ("learning rate", lambda row: rate_text(row["learning_rate"], row["rate_at_edge"])),
        ("updates", "{num_updates:,}"),
        (
            "bits per character, last quarter",
            lambda row: mean_and_deviation(row["last_quarter_bits"]),
        ),
        (
            f"less that of {base} [95 %]",
            _if_finite(
                lambda row: row["difference"], "{difference:+.4f} ± {difference_half_width:.4f}"
            ),
        ),
        (
            "the same, first tenth",
            _if_finite(
                lambda row: row["early_difference"][0],
                "{early_difference[0]:+.3f} ± {early_difference[1]:.3f}",
            ),
        ),
        ("held out", lambda row: mean_and_deviation(row["held_out_bits"])),
        ("ms per update", lambda row: f"{1e3 * row['seconds_per_update']:.2f}"),
        (f"time per update / {base}", "{time_ratio:.2f}"),
        ("seconds in all", "{seconds:.1f}"),
        (
            "bits at equal time",
            _if_finite(lambda row: row["equal_time_bits"], "{equal_time_bits:.3f}"),
        ),
    ]


def _if_finite(value: Callable[[Row], float], form: str) -> Callable[[Row], str]:
    """Makes a column that says so where the value is not finite."""
    return lambda row: form.format_map(row) if np.isfinite(value(row)) else "not finite"


def notes(config: Any, rows: Sequence[Row]) -> str:
    """Explains the table, and adds further numbers."""
    row_of = by_arm(rows)
    bits = [
        [*row["tuning_bits"].values(), *row["last_quarter_bits"], *row["held_out_bits"]]
        for row in (row_of[1, 1, mode] for mode in MODE_WORDS)
    ]
    largest = np.abs(np.subtract(bits, bits[0])).max()
    by_rate = [row_of[config.k1, config.k2, mode] for mode in MODE_WORDS]
    rates: list[Column] = [
        (rate, lambda row, rate=rate: f"{row['tuning_bits'][rate]:.4f}")
        for rate in by_rate[0]["tuning_bits"]
    ]
    return f"""\
{rows[0]["text"]}, LSTM with {config.hidden_size} units, batch {config.batch}, \
{config.num_steps:,} time steps in one pass, Adam with a constant rate, the best of \
{rates_text(config)} for each arm by \
{config.num_tuning_runs} runs that are not reported (\\*: at the edge of the grid).
{config.num_seeds} seeds, each with its own initial weights and slice of the text: mean ± standard \
deviation; of differences, which are paired, mean ± half-width of the 95 % interval (Student's t). \
"Last quarter", "first tenth": of the time steps, each character scored before its update; under \
"reforward" it is scored from a carry that the current weights have made, under the others not. \
"Held out": with the final weights, on {config.held_out_steps * config.batch:,} characters of the \
validation text. Times are medians over {config.timing_rounds} rounds, without compilation. "At \
equal time": in the bin of the curve that was reached after {rows[0]["equal_time_seconds"]:.2f} s, \
when the fastest arm has finished, at the learning rates tuned for the whole run.

At k1 = k2 = 1 the largest difference between modes, over all rates and seeds, is {largest:.1g} \
bits.

TBPTT({config.k1}, {config.k2}) at each learning rate: bits per character over the last quarter of \
these runs.

{markdown_table(by_rate, [("mode", "{mode}"), *rates])}"""


def make_figure(config: Any, rows: Sequence[Row]) -> Figure:
    """Draws the three panels."""
    figure, (updates, seconds, sweeps) = new_figure(
        (13.2, 5.0),
        "TBPTT(k1, k2) on next-character prediction: an update every k1 steps, looking back k2",
        f"{rows[0]['text']}, LSTM with {config.hidden_size} units, batch {config.batch}. Mean of "
        f"{config.num_seeds} seeds; learning rate tuned for each line and point.",
        [(left, 0.125, 0.265, 0.63) for left in (0.052, 0.38, 0.712)],
    )
    _draw_modes(updates, config, rows, against="updates")
    _draw_modes(seconds, config, rows, against="seconds")
    updates.set_ylabel("bits per character")
    _draw_sweeps(sweeps, config, rows)
    return figure


def _draw_modes(axes: Axes, config: Any, rows: Sequence[Row], against: str) -> None:
    axes.set_title(f"Three modes of TBPTT({config.k1}, {config.k2}), against {against}", loc="left")
    axes.set(xscale="log", yscale="log", xlabel=against)
    curves = []
    for mode, pen in _PEN_OF.items():
        row = by_arm(rows)[config.k1, config.k2, mode]
        unit, words = 1.0, MODE_WORDS[mode]
        if against == "seconds":
            unit = row["seconds_per_update"]
            words += f"\n{row['time_ratio']:.2f} × the time per update"
        curves.append(row["curve_bits"])
        axes.plot(bin_edges(config)[1:] / config.k1 * unit, curves[-1], label=words, **pen)
    # A legend, not labels at the ends: the three lines end in one point.
    axes.legend(frameon=False, loc="upper right", fontsize=9)
    finite = np.array(curves)[np.isfinite(curves)]  # a curve that diverged ends where it did
    low, high = (finite.min() * 0.95, finite.max() * 1.2) if finite.size else (1.0, 8.0)
    axes.set_ylim(low, high)
    plain_ticks(axes.yaxis, [t for t in (1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8) if low <= t <= high])
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    grid(axes)


def _draw_sweeps(axes: Axes, config: Any, rows: Sequence[Row]) -> None:
    k1, k2 = config.k1, config.k2
    lines = (
        (f"k1 varies, k2 = {k2}", COLOURS[5], config.k1_sweep, [(k, k2) for k in config.k1_sweep]),
        (f"k2 varies, k1 = {k1}", COLOURS[1], config.k2_sweep, [(k1, k) for k in config.k2_sweep]),
    )
    for words, color, xs, pairs in lines:
        losses = np.array([by_arm(rows)[(*pair, "stored")]["last_quarter_bits"] for pair in pairs])
        axes.plot(xs, losses.mean(1), color=color, linewidth=2.2, marker="o", label=words)
        axes.plot(xs, losses, "_", color=color, markersize=7, alpha=0.6)
    axes.margins(y=0.2)  # room for the legend
    axes.legend(frameon=False, loc="upper right", ncols=2, fontsize=9)
    axes.set(xscale="log", xlabel="k1 or k2 in steps")
    axes.set_title("Rarer updates, longer windows", loc="left")
    axes.set_ylabel(f"bits per character, last quarter of {config.num_steps:,} steps")
    plain_ticks(axes.xaxis, sorted({*config.k1_sweep, *config.k2_sweep}))
    grid(axes, "y")
