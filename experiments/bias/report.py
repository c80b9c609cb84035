"""The table: what every estimator's bias and noise are on every system."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.bias.measure import each_confidence, number_of_intervals
from experiments.common.report import Column, Row

COLUMNS: list[Column] = [
    ("system", lambda row: row["problem"]),
    ("estimator", lambda row: row["estimator"]),
    ("update delay, steps", lambda row: _number(row, "length")),
    ("memory, steps", lambda row: _number(row, "mean_memory")),
    ("bias ÷ gradient", lambda row: _interval(row, "bias")),
    (
        "along the gradient",
        lambda row: _plus_minus(row, "projection", "projection_half_width"),
    ),
    ("cosine", lambda row: _number(row, "cosine")),
    ("on one window", lambda row: _plus_minus(row, "on_window", "on_window_half_width")),
    ("draws", lambda row: f"{row['num_draws']:,}" if "num_draws" in row else ""),
    ("noise ÷ gradient", lambda row: _interval(row, "noise")),
    ("variance ÷ that of the data", lambda row: _interval(row, "variance_to_data")),
    ("bias by enumeration", lambda row: _scientific(row, "enumeration_error")),
]


def shown(rows: Sequence[Row], share: float) -> list[dict[str, Any]]:
    """What is asked of the rows, each of which the note under the table states.

    For each system: whether TBPTT's bias at every K up to the mean length is told from zero, and
    whether the intervals of ARTBP hold zero and have a half-width below `share` of the bias of
    TBPTT at the mean length.
    """
    verdicts = []
    for problem in dict.fromkeys(row["problem"] for row in rows):
        own = [row for row in rows if row["problem"] == problem]
        tested = [row for row in own if row["kind"] == "artbp" and "on_window" in row]
        longest = max((row["length"] for row in tested), default=0)
        short = [row for row in own if row["kind"] == "tbptt" and row["length"] <= longest]
        verdicts.append(
            {
                "problem": problem,
                "biased": sum(row["bias_interval"][0] > 0 for row in short),
                "short": len(short),
                "unbiased": sum(abs(r["on_window"]) <= r["on_window_half_width"] for r in tested),
                "narrow": sum(
                    r["on_window_half_width"] < share * abs(r["tbptt_on_window"]) for r in tested
                ),
                "tested": len(tested),
            }
        )
    return verdicts


def notes(config: Any, rows: Sequence[Row], sentences: Sequence[tuple[str, str]]) -> str:
    """What the columns mean, and what limits each system."""
    confidence = each_confidence(config)
    verdicts = "\n".join(
        f"- {v['problem']}: TBPTT's bias is told from zero at {v['biased']} of {v['short']} "
        f"lengths up to {config.mean_length}; zero lies in {v['unbiased']} of {v['tested']} "
        f"intervals of ARTBP, of which {v['narrow']} have a half-width below "
        f"{config.half_width_share:g} times the bias of TBPTT {config.mean_length}."
        for v in shown(rows, config.half_width_share)
    )
    limits = "\n".join(f"- {name}: {sentence}" for name, sentence in sentences)
    return f"""\
Windows of {config.window_length} steps, {config.num_windows} of them. "Bias ÷ gradient": of the \
mean over windows, with the interval over windows (jackknife); "along the gradient": its part in \
that direction, −1 where nothing is left, below −1 where the sign is wrong. "On one window": the \
same for the first window as it is, over boundaries (TBPTT: 16 offsets of the cuts); ARTBP's \
interval is made from its exact variance. "Noise": of one window's gradient, that of ARTBP from \
sampled steps, of BPTT that of the data. "Memory": of ARTBP, the mean length of the segment that a \
random step is in. "By enumeration": ‖E ĝ − g‖ ÷ ‖g‖ over all boundary patterns of 9 steps. Each \
interval is at the level {confidence:.4%}, so that all {number_of_intervals(config)} on bias hold \
together at {config.family_level:.0%}.

{verdicts}

What limits each system:

{limits}

Made by `python -m experiments.bias` with the configuration in config.json."""


def _interval(row: Row, name: str) -> str:
    if name not in row:
        return ""
    if f"{name}_interval" not in row:
        return f"{row[name]:.3g}"
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.3g} [{low:.3g}, {high:.3g}]"


def _plus_minus(row: Row, name: str, half_width: str) -> str:
    if name not in row:
        return ""
    return f"{row[name]:+.4f}" + (f" ± {row[half_width]:.4f}" if half_width in row else "")


def _number(row: Row, name: str) -> str:
    return f"{row[name]:.3g}" if name in row else ""


def _scientific(row: Row, name: str) -> str:
    return f"{row[name]:.0e}" if name in row else ""
