"""The table: bias and noise of every estimator on every system; and the figure."""

import contextlib
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from artbp import diagnostics
from experiments.bias.measure import each_confidence, number_of_intervals
from experiments.common.arms import parse
from experiments.common.figures import STYLE
from experiments.common.report import Column, Row, select


def _first(*forms: str) -> Callable[[Row], str]:
    """The first of these formats whose fields a row has; else nothing."""

    def text(row: Row) -> str:
        for form in forms:
            with contextlib.suppress(KeyError):
                return form.format_map(row)
        return ""

    return text


def _with_interval(field: str, interval: str) -> Callable[[Row], str]:
    limits = f"[{{{interval}[0]:.3g}}, {{{interval}[1]:.3g}}]"
    return _first(f"{{{field}:.3g}} {limits}", f"{{{field}:.3g}}")


COLUMNS: list[Column] = [
    ("system", "{system}"),
    ("estimator", "{estimator}"),
    ("update delay, steps", _first("{length:.3g}")),
    ("memory, steps", _first("{mean_memory:.3g}")),
    ("bias ÷ gradient", _with_interval("relative_bias", "bias_interval")),
    ("along the gradient", _first("{projection:+.4f} ± {projection_half_width:.4f}")),
    ("cosine", _first("{cosine:.3g}")),
    ("on one window", _first("{on_window:+.4f} ± {on_window_half_width:.4f}", "{on_window:+.4f}")),
    ("draws", _first("{num_draws:,}")),
    ("noise ÷ gradient", _with_interval("relative_noise", "noise_interval")),
    ("variance ÷ that of the data", _with_interval("variance_to_data", "variance_interval")),
    ("bias by enumeration", _first("{enumeration_error:.0e}")),
    ("work", _first("{relative_work:.3g}")),
]


def verdicts(rows: Sequence[Row], share: float) -> list[Row]:
    """Counts for the note under the table, for each system.

    At how many K up to the mean length TBPTT's bias is told from zero; how many intervals of ARTBP
    and of unbiased TBPTT hold zero, and how many have a half-width below `share` of TBPTT's bias
    there.
    """
    found = []
    for system in dict.fromkeys(row["system"] for row in rows):
        own = select(rows, system=system)
        tested = [row for row in own if "tbptt_on_window" in row]
        longest = max((row["length"] for row in tested), default=0)
        short = [row for row in own if row["kind"] == "tbptt" and row["length"] <= longest]
        unbiased = [abs(row["on_window"]) <= row["on_window_half_width"] for row in tested]
        limits = [share * abs(row["tbptt_on_window"]) for row in tested]
        narrow = [row["on_window_half_width"] < x for row, x in zip(tested, limits, strict=True)]
        counts = {"biased": sum(row["bias_interval"][0] > 0 for row in short), "short": len(short)}
        counts |= {"unbiased": sum(unbiased), "narrow": sum(narrow), "tested": len(tested)}
        found.append({"system": system} | counts)
    return found


def notes(config: Any, rows: Sequence[Row], sentences: Mapping[str, str]) -> str:
    """What the columns mean, and what limits each system."""
    length, share = parse(config.tested_arms[0]).length, config.half_width_share
    words = (
        "- {system}: TBPTT's bias is told from zero at {biased} of {short} lengths up to {length:g}"
        "; zero lies in {unbiased} of {tested} intervals of ARTBP and unbiased TBPTT, of which "
        "{narrow} have a half-width below {share:g} times the bias of TBPTT {length:g}."
    )
    counts = [{"length": length, "share": share} | one for one in verdicts(rows, share)]
    found = "\n".join(map(words.format_map, counts))
    limits = "\n".join(f"- {name}: {sentence}" for name, sentence in sentences.items())
    return f"""\
Windows of {config.window_length} steps, {config.num_windows} of them. "Bias ÷ gradient": of the \
mean over windows, with the interval over windows (jackknife); "along the gradient": its part in \
that direction, −1 where nothing is left, below −1 where the sign is wrong. "On one window": the \
same for the first window, over boundaries or look-backs (TBPTT: 16 offsets of the cuts); the \
intervals of ARTBP and unbiased TBPTT are made from their exact variance. "Noise": of one \
window's gradient; ARTBP's from sampled steps, unbiased TBPTT's from sampled windows of K steps \
by the exact formula, with look-backs over {config.window_length} to {2 * config.window_length} \
steps; BPTT's is that of the data. "Memory": of ARTBP, the mean length of the segment that a \
random step is in; of unbiased TBPTT, the steps whose residuals it stores, beside a few carries. \
"By enumeration": ‖E ĝ − g‖ ÷ ‖g‖, of ARTBP over all boundary patterns of 9 steps, of unbiased \
TBPTT over all look-backs of the first window. "Work": matrix products ÷ those of TBPTT. Each \
interval is at the level {each_confidence(config):.4%}, so that all \
{number_of_intervals(config)} on bias hold together at {config.family_level:.0%}.

{found}

What limits each system:

{limits}"""


def make_figure(panels: Sequence[tuple[str, diagnostics.GradientReport]]) -> Figure:
    """A panel for each (label, report): bias of TBPTT, noise of the others and of the data."""
    num_rows = -(-len(panels) // 2)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(16, 1 + 4.9 * num_rows), layout="constrained")
        grid = figure.subplots(num_rows, 2, squeeze=False).ravel()
        for axes, (label, report) in zip(grid, panels, strict=False):
            diagnostics.plot_report(report, axes)
            lines = textwrap.wrap(diagnostics.describe(report), 92)
            axes.set_title(label.replace("\n", ", "), fontweight="bold", pad=10 + 11 * len(lines))
            text = "\n".join(lines)
            axes.text(0, 1.02, text, transform=axes.transAxes, fontsize=8.5, va="bottom")
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        title = "How biased is truncation, and how noisy is the gradient without the bias?"
        figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
    return figure
