"""The tables of the four parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common.arms import parse
from experiments.common.report import Column, Row, table
from experiments.common.tuning import rate_text
from experiments.stability.config import trained
from experiments.stability.training import FAILED_ABOVE, words


def part(rows: Sequence[Row], name: str, **fields: Any) -> list[Row]:
    """The rows of one part, with these values."""
    wanted = {"part": name, **fields}
    return [row for row in rows if all(row[field] == value for field, value in wanted.items())]


def tables(config: Any, rows: Sequence[Row]) -> str:
    """All five."""
    sections = {
        "(i) Norm of the gradient of one sequence": _norms(config, rows),
        "(ii) Training by SGD": _training(config, rows),
        "(iii) |change of the loss| ≤ L · η · θ_c": _bound(config, rows),
        "(iv) Progress under clipping": _progress(config, rows),
        "(iv) The mean of the clipped ARTBP gradient": _bias(config, rows),
    }
    return "\n".join(f"## {title}\n\n{text}" for title, text in sections.items())


def _norms(config: Any, rows: Sequence[Row]) -> str:
    quantiles = "{quantiles[0.5]:.2g} [{quantiles[0.05]:.2g}, {quantiles[0.95]:.2g}]"
    lines = []
    for radius in config.spectral_radii:
        line = {"ρ": f"{radius:g}"}
        for row in part(rows, "norms", spectral_radius=radius):
            line[row["label"]] = quantiles.format_map(row)
            line[f"largest, {row['label']}"] = f"{row['largest']:.2g}"
        lines.append(line)
    return table(
        lines,
        _columns(lines),
        f"Median [5 %, 95 %], and the largest, of {config.num_norm_draws} draws of weights, "
        f"sequence and boundaries. Loss: mean per step of {config.sequence_length} steps, "
        f"{config.num_rows} rows.",
    )


def _columns(lines: Sequence[Row]) -> list[Column]:
    """Of lines that hold texts by their headings."""
    return [(heading, lambda line, heading=heading: line[heading]) for heading in lines[0]]


def _training(config: Any, rows: Sequence[Row]) -> str:
    labels = [words(*one) for one in trained(config)]
    lines = [
        summary(rows, label, labels[0], radius)
        for radius in config.spectral_radii
        for label in labels
    ]
    columns: list[Column] = [
        ("ρ", "{spectral_radius:g}"),
        ("arm", "{label}"),
        ("rate", lambda line: rate_text(line["learning_rate"], line["rate_at_edge"])),
        ("loss at that rate", _loss),
        ("no run fails up to rate", "{stable}"),
        (f"loss at the rate of {labels[0]}", lambda line: _loss(line["at_first_rate"])),
    ]
    return table(
        lines,
        columns,
        f"Mean squared error of the last tenth of {config.num_sequences} sequences (predicting the "
        f"mean gives 1): median [smallest, largest] of {config.num_seeds} seeds. A run has failed "
        f"when that loss is above {FAILED_ABOVE:g} or not finite. Rate: of "
        f"{', '.join(f'{rate:g}' for rate in config.learning_rates)}, the one with the smallest "
        f"mean loss over {config.num_tuning_runs} runs that are not reported, among the rates at "
        "which none of these runs failed (\\*: at the edge of the grid). "
        f"Clipped by norm at {config.clip_norm:g}, by value at {config.clip_value:g}. Full BPTT "
        "updates once per sequence, the others once per segment.",
    )


def summary(rows: Sequence[Row], label: str, first: str, radius: float) -> Row:
    """The row of the rate chosen for an arm, and its row at the rate chosen for the `first` arm.

    "stable" is the largest rate up to which no run fails.
    """
    own = part(rows, "training", label=label, spectral_radius=radius)
    of_first = part(rows, "training", label=first, spectral_radius=radius)
    at_first_rate = next(row for row, other in zip(own, of_first, strict=True) if other["chosen"])
    stable = "none"
    for row in own:
        if row["failed"] > 0:
            break
        stable = f"{row['learning_rate']:g}"
    chosen = next(row for row in own if row["chosen"])
    return chosen | {"stable": stable, "at_first_rate": at_first_rate}


def _loss(row: Row) -> str:
    failed = f", {round(row['failed'] * row['num_seeds'])} of {row['num_seeds']} failed"
    return _spread(row, "loss") + failed * (row["failed"] > 0)


def _spread(row: Row, field: str) -> str:
    numbers = (row[f"{field}_{word}"] for word in ("median", "smallest", "largest"))
    middle, low, high = (f"{x:.3g}" if np.isfinite(x) else "∞" for x in numbers)
    return f"{middle} [{low}, {high}]"


def _bound(config: Any, rows: Sequence[Row]) -> str:
    columns: list[Column] = [
        ("ρ", "{spectral_radius:g}"),
        ("bound held", "{num_held} of {num_steps} steps"),
        ("largest change / bound", "{largest_ratio:.3g}"),
        ("median", "{median_ratio:.3g}"),
        ("steps clipped", "{share_clipped:.0%}"),
        ("largest gradient norm before clipping", "{largest_gradient_norm:.3g}"),
        ("longest step / (η θ_c)", "{longest_step_ratio:.6f}"),
        ("loss before and after", "{first_loss:.3g}, {last_loss:.3g}"),
    ]
    return table(
        part(rows, "bound"),
        columns,
        f"{parse(config.clipped_arm).label} with SGD, η = {config.bound_learning_rate:g}, clipped "
        f"to a norm of θ_c = {config.clip_norm:g}. Loss: of sequences that training does not see. "
        "L: the largest norm of its gradient along the step.",
    )


def clip_words(row: Row) -> tuple[str, str]:
    """What is clipped, and the bound."""
    for kind in ("norm", "value"):
        if np.isfinite(row[f"{kind}_bound"]):
            return kind, f"{row[f'{kind}_bound']:g}"
    return "none", "no clipping"


def _progress(config: Any, rows: Sequence[Row]) -> str:
    lines: dict[str, Row] = {}
    for row in part(rows, "progress"):
        bound = clip_words(row)[1]
        line = lines.setdefault(bound, {"bound on the norm": bound})
        line[f"loss at rate {row['learning_rate']:g}"] = _loss(row)
    return table(
        list(lines.values()),
        _columns(list(lines.values())),
        f"{parse(config.clipped_arm).label}, ρ = {config.clipping_radius:g}: loss of the last "
        f"tenth of {config.num_sequences} sequences, median [smallest, largest] of "
        f"{config.num_seeds} seeds.",
    )


def _bias(config: Any, rows: Sequence[Row]) -> str:
    columns: list[Column] = [
        ("clipped by", lambda row: clip_words(row)[0]),
        ("bound", lambda row: clip_words(row)[1]),
        ("norm of the mean / norm of BPTT", lambda row: _spread(row, "relative_norm")),
        ("cosine with BPTT", lambda row: _spread(row, "cosine")),
        ("\\|mean − BPTT\\| / \\|BPTT\\|", lambda row: _spread(row, "relative_bias")),
        ("standard error", lambda row: _spread(row, "relative_standard_error")),
    ]
    return table(
        part(rows, "bias"),
        columns,
        f"Median [smallest, largest] of {config.num_seeds} draws of weights and sequence, at the "
        f"first weights, ρ = {config.clipping_radius:g}. For each, the gradient of each segment is "
        f"clipped, those of a sequence are summed, and {config.num_bias_keys:,} draws of the "
        "boundaries are averaged. Standard error: of that mean, as a vector, relative to the norm "
        "of BPTT; the difference from BPTT is that large by chance alone.",
    )
