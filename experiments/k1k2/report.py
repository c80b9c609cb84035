"""Makes one row for each arm, and the notes under their table."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common.arms import tbptt_k1_k2
from experiments.common.report import Column, Row, interval, markdown_table, mean_and_deviation
from experiments.common.tuning import rate_text
from experiments.k1k2.training import Runs

MODE_WORDS = {
    "stored": "stored carries, current weights",
    "past_weights": "stored carries, past weights",
    "reforward": "window run again",
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
        rows.append(
            {
                "text": text,
                **{name: runs.arm.arguments[name] for name in ("k1", "k2", "mode")},
                "learning_rate": runs.choice.rate,
                "rate_at_edge": runs.choice.at_edge,
                "tuning_bits": dict(zip(rates, runs.choice.scores, strict=True)),
                "last_quarter_bits": runs.last_quarter.tolist(),
                "held_out_bits": runs.held_out.tolist(),
                "curve_bits": np.round(runs.curves.mean(0), 4).tolist(),
                "difference": difference,
                "difference_half_width": half_width,
                "early_difference": interval(early),
                "num_updates": runs.num_updates,
                "seconds_per_update": float(per_update[i]),
                "time_ratio": float(ratios[i]),
                "seconds": float(totals[i]),
                "equal_time_seconds": float(totals.min()),
                "equal_time_bits": float(runs.curves[:, bin_then].mean()),
            }
        )
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
        (f"less that of {base} [95 %]", "{difference:+.4f} ± {difference_half_width:.4f}"),
        ("the same, first tenth", "{early_difference[0]:+.3f} ± {early_difference[1]:.3f}"),
        ("held out", lambda row: mean_and_deviation(row["held_out_bits"])),
        ("ms per update", lambda row: f"{1e3 * row['seconds_per_update']:.2f}"),
        (f"time per update / {base}", "{time_ratio:.2f}"),
        ("seconds in all", "{seconds:.1f}"),
        ("bits at equal time", "{equal_time_bits:.3f}"),
    ]


def notes(config: Any, rows: Sequence[Row]) -> str:
    """Explains the table, and adds further numbers."""

    def all_bits(row: Row) -> np.ndarray:
        seeds = (*row["last_quarter_bits"], *row["held_out_bits"])
        return np.array([*row["tuning_bits"].values(), *seeds])

    one = [all_bits(by_arm(rows)[1, 1, mode]) for mode in MODE_WORDS]
    largest = max(np.abs(bits - one[0]).max() for bits in one)
    by_rate = [by_arm(rows)[config.k1, config.k2, mode] for mode in MODE_WORDS]
    rates: list[Column] = [
        (rate, lambda row, rate=rate: f"{row['tuning_bits'][rate]:.4f}")
        for rate in by_rate[0]["tuning_bits"]
    ]
    return f"""\
{rows[0]["text"]}, LSTM with {config.hidden_size} units, batch {config.batch}, \
{config.num_steps:,} time steps in one pass, Adam with a constant rate, the best of \
{", ".join(f"{rate:g}" for rate in config.learning_rates)} for each arm by \
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
