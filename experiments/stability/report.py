"""The tables of the four parts, in one file, and all rows as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common.report import Column, Row, markdown_table, write_text_and_rows
from experiments.stability.training import ARMS, FAILED_ABOVE


def part(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows of one part."""
    return [row for row in rows if row["part"] == name]


def write(folder: Path, config: Any, rows: Sequence[Row]) -> str:
    """Writes `table.md`, and last of all `results.json`: a list, told apart by "part".

    Returns:
        The tables.
    """
    text = "\n".join(
        [
            "Command: `python -m experiments.stability --config configs/stability/default.py "
            "--workdir DIR`; the configuration is in config.json.\n",
            _section("(i) Norm of the gradient of one sequence", _norms(rows, config)),
            _section("(ii) Training by SGD", _training(rows, config)),
            _section("(iii) |change of the loss| ≤ L · η · θ_c", _bound(rows)),
            _section("(iv) Progress under clipping", _progress(rows, config)),
            _section("(iv) The mean of the clipped ARTBP gradient", _bias(rows, config)),
        ]
    )
    write_text_and_rows(folder, text, rows, indent=1)
    return text


def _section(title: str, table_and_note: tuple[str, str]) -> str:
    table, note = table_and_note
    return f"## {title}\n\n{table}\n{note}\n"


def _norms(rows: Sequence[Row], config: Any) -> tuple[str, str]:
    rows = part(rows, "norms")
    labels = list(dict.fromkeys(row["label"] for row in rows))
    lines = [
        {row["label"]: row for row in rows if row["spectral_radius"] == radius} | {"ρ": radius}
        for radius in config.spectral_radii
    ]

    def words(row: Row) -> str:
        low, middle, high = (f"{row['quantiles'][q]:.2g}" for q in ("0.05", "0.5", "0.95"))
        return f"{middle} [{low}, {high}]"

    columns: list[Column] = [("ρ", lambda line: f"{line['ρ']:g}")]
    for label in labels:
        columns += [
            (label, lambda line, label=label: words(line[label])),
            ("largest", lambda line, label=label: f"{line[label]['largest']:.2g}"),
        ]
    note = (
        f"Median [5 %, 95 %], and the largest, of {config.num_norm_draws} draws of weights, "
        f"sequence and boundaries. Loss: mean per step of {config.sequence_length} steps, "
        f"{config.num_rows} rows. Segments of {config.mean_length} steps, on average; "
        f"α = {config.alpha:g}."
    )
    return markdown_table(lines, columns), note


def _training(rows: Sequence[Row], config: Any) -> tuple[str, str]:
    rows = part(rows, "training")
    lines = [summary(rows, arm.label, radius) for radius in config.spectral_radii for arm in ARMS]
    columns: list[Column] = [
        ("ρ", lambda line: f"{line['spectral_radius']:g}"),
        ("arm", lambda line: line["arm"]),
        ("best rate", lambda line: f"{line['best_rate']:g}" + " (edge)" * line["at_edge"]),
        ("loss at the best rate", lambda line: _loss(line["best"])),
        ("no run fails up to rate", _stable),
        ("loss at the best rate of TBPTT", lambda line: _loss(line["at_tbptt_rate"])),
    ]
    note = (
        f"Mean squared error of the last tenth of {config.num_sequences} sequences (predicting the "
        f"mean gives 1): median [smallest, largest] of {config.num_seeds} seeds. A run has failed "
        f"when that loss is above {FAILED_ABOVE:g} or not finite. Rates: "
        f"{', '.join(f'{rate:g}' for rate in config.learning_rates)}; the best is that of the "
        "smallest median among those where no run fails; (edge): it is the smallest or largest of "
        "all. The best rate is chosen, and its loss reported, on the same seeds: for each arm this "
        "loss is a little too good. "
        f"Clipped by norm at {config.clip_norm:g}, by value at {config.clip_value:g}. BPTT "
        f"updates once per sequence, {config.sequence_length // config.mean_length} times less "
        "often than the others. A small rate in place of clipping: ARTBP at its best rate."
    )
    return markdown_table(lines, columns), note


def summary(rows: Sequence[Row], arm: str, radius: float) -> Row:
    """One arm at one spectral radius: its best rate, and what it does at the best of TBPTT."""
    own = _of(rows, arm, radius)
    best = best_row(own)
    rate = best_row(_of(rows, ARMS[0].label, radius))["learning_rate"]
    failing = [row["learning_rate"] for row in own if row["failed"] > 0]
    stable = [
        row["learning_rate"] for row in own if row["learning_rate"] < min(failing, default=np.inf)
    ]
    return {
        "arm": arm,
        "spectral_radius": radius,
        "best": best,
        "best_rate": best["learning_rate"],
        "at_edge": best is own[0] or best is own[-1],
        "largest_stable_rate": max(stable, default=None),
        "at_tbptt_rate": next(row for row in own if row["learning_rate"] == rate),
    }


def _of(rows: Sequence[Row], arm: str, radius: float) -> list[Row]:
    return [row for row in rows if row["arm"] == arm and row["spectral_radius"] == radius]


def best_row(rows: Sequence[Row]) -> Row:
    """The smallest median among the rates where no run fails, or of all if there are none."""
    return min(rows, key=lambda row: (row["failed"] > 0, row["loss_median"]))


def _stable(line: Row) -> str:
    rate = line["largest_stable_rate"]
    return "none" if rate is None else f"{rate:g}"


def _loss(row: Row) -> str:
    words = _spread(row, "loss")
    if row["failed"] > 0:
        words += f", {round(row['failed'] * row['num_seeds'])} of {row['num_seeds']} failed"
    return words


def _spread(row: Row, field: str) -> str:
    middle, low, high = (number(row[f"{field}_{w}"]) for w in ("median", "smallest", "largest"))
    return f"{middle} [{low}, {high}]"


def number(value: float) -> str:
    """Three digits, or ∞."""
    return f"{value:.3g}" if np.isfinite(value) else "∞"


def _bound(rows: Sequence[Row]) -> tuple[str, str]:
    rows = part(rows, "bound")
    columns: list[Column] = [
        ("ρ", lambda row: f"{row['spectral_radius']:g}"),
        ("bound held", lambda row: f"{row['num_held']} of {row['num_steps']} steps"),
        ("largest change / bound", lambda row: number(row["largest_ratio"])),
        ("median", lambda row: number(row["median_ratio"])),
        ("steps clipped", lambda row: f"{row['share_clipped']:.0%}"),
        ("largest gradient norm before clipping", lambda row: number(row["largest_gradient_norm"])),
        ("longest step / (η θ_c)", lambda row: f"{row['longest_step_ratio']:.6f}"),
        ("loss before and after", lambda row: _before_after(row)),
    ]
    row = rows[0]
    note = (
        f"ARTBP with SGD, η = {row['learning_rate']:g}, clipped to a norm of θ_c = "
        f"{row['clip_bound']:g}. Loss: of sequences that training does not see. L: the largest "
        "norm of its gradient along the step."
    )
    return markdown_table(rows, columns), note


def _before_after(row: Row) -> str:
    return f"{number(row['first_loss'])}, {number(row['last_loss'])}"


def clip_words(row: Row) -> tuple[str, str]:
    """What is clipped, and the bound."""
    for kind in ("norm", "value"):
        if np.isfinite(row[f"{kind}_bound"]):
            return kind, f"{row[f'{kind}_bound']:g}"
    return "none", "no clipping"


def _progress(rows: Sequence[Row], config: Any) -> tuple[str, str]:
    rows = part(rows, "progress")
    lines = [
        {row["learning_rate"]: row for row in rows if row["norm_bound"] == bound}
        for bound in dict.fromkeys(row["norm_bound"] for row in rows)
    ]
    rates = config.clipping_learning_rates
    columns: list[Column] = [("bound on the norm", lambda line: clip_words(line[rates[0]])[1])]
    columns += [
        (f"loss at rate {rate:g}", lambda line, rate=rate: _loss(line[rate])) for rate in rates
    ]
    note = (
        f"ARTBP, ρ = {config.clipping_radius:g}: loss of the last tenth of {config.num_sequences} "
        f"sequences, median [smallest, largest] of {config.num_seeds} seeds."
    )
    return markdown_table(lines, columns), note


def _bias(rows: Sequence[Row], config: Any) -> tuple[str, str]:
    rows = part(rows, "bias")
    columns: list[Column] = [
        ("clipped by", lambda row: clip_words(row)[0]),
        ("bound", lambda row: clip_words(row)[1]),
        ("norm of the mean / norm of BPTT", lambda row: _spread(row, "relative_norm")),
        ("cosine with BPTT", lambda row: _spread(row, "cosine")),
        ("\\|mean − BPTT\\| / \\|BPTT\\|", lambda row: _spread(row, "relative_bias")),
        ("standard error", lambda row: _spread(row, "relative_standard_error")),
    ]
    note = (
        f"Median [smallest, largest] of {config.num_seeds} draws of weights and sequence, at the "
        f"first weights, ρ = {config.clipping_radius:g}. For each, the gradient of each segment is "
        f"clipped, those of a sequence are summed, and {config.num_bias_keys:,} draws of the "
        "boundaries are averaged. Standard error: of that mean, as a vector, relative to the norm "
        "of BPTT; the difference from BPTT is that large by chance alone."
    )
    return markdown_table(rows, columns), note
