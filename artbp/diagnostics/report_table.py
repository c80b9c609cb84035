"""The gradient report as a table: everything it holds, in one unit."""

from __future__ import annotations

import math

from artbp.diagnostics.report import GradientReport, law_name

_COLUMNS = (
    "estimator",
    "update delay, steps",
    "memory, steps",
    "bias ÷ gradient",
    "along the gradient",
    "cosine",
    "noise ÷ gradient",
    "variance ÷ that of the data",
    "bias matters from averages over, windows",
)


def report_table(report: GradientReport) -> str:
    """Markdown, one row for each estimator, with intervals in brackets.

    Update delay: steps from one update to the next, on average. Memory: K of TBPTT, the window of
    BPTT, and for ARTBP E[L²]/E[L], the mean length of the segment that a random step is in. Bias
    and noise: relative to the gradient of one window; BPTT's noise is that of the data, ARTBP's is
    what its boundaries add. For the columns see `TruncationBias` and `TruncationNoise`.
    """
    window = report.window_length
    noise = _with_interval(report.data_noise, report.data_noise_interval)
    rows = [("BPTT through the window", f"{window}", f"{window}", "0", "0", "1", noise, "1", "")]
    for bias in report.biases:
        length = f"{bias.truncation_length}"
        along = f"{bias.projection:+.3f} ± {bias.projection_half_width:.3f}"
        rows.append(
            (
                f"TBPTT {length}",
                length,
                length,
                _with_interval(bias.relative_bias, bias.interval),
                along,
                f"{bias.cosine:.3f}",
                "",
                "",
                _with_interval(bias.windows_to_matter, bias.windows_interval),
            )
        )
    for law in report.noises:
        rows.append(
            (
                f"ARTBP, {law_name(law.law)}",
                f"{law.mean_length:.3g}",
                _number(law.mean_memory),
                "0",
                "0",
                "1",
                f"+ {_with_interval(law.relative_noise, law.interval)}",
                f"+ {_with_interval(law.variance_to_data, law.variance_interval)}",
                "",
            )
        )
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{_number(value)} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    if math.isinf(value):
        return "∞"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
