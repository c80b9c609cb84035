"""The tables of the four parts."""

import itertools
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from experiments.common.arms import parse
from experiments.common.report import Column, Row, select, table
from experiments.common.tuning import rate_text
from experiments.stability.config import trained
from experiments.stability.training import FAILED_ABOVE


def clip_words(row: Row) -> tuple[str, str]:
    """What is clipped, and the bound."""
    for kind in ("norm", "value"):
        if np.isfinite(row[f"{kind}_bound"]):
            return kind, f"{row[f'{kind}_bound']:g}"
    return "none", "no clipping"


def _spread(field: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        numbers = (row[f"{field}_{word}"] for word in ("median", "smallest", "largest"))
        middle, low, high = (f"{x:.3g}" if np.isfinite(x) else "∞" for x in numbers)
        return f"{middle} [{low}, {high}]"

    return text


def _loss(row: Row) -> str:
    failed = f", {round(row['failed'] * row['num_seeds'])} of {row['num_seeds']} failed"
    return _spread("loss")(row) + failed * (row["failed"] > 0)


TRAINING_COLUMNS: list[Column] = [
    ("ρ", "{spectral_radius:g}"),
    ("arm", "{label}"),
    ("rate", lambda row: rate_text(row["learning_rate"], row["rate_at_edge"])),
    ("loss at that rate", _loss),
    ("no run fails up to rate", "{stable}"),
    ("loss at the rate of the first arm", lambda row: _loss(row["at_first_rate"])),
]
BOUND_COLUMNS: list[Column] = [
    ("ρ", "{spectral_radius:g}"),
    ("bound held", "{num_held} of {num_steps} steps"),
    ("largest change / bound", "{largest_ratio:.3g}"),
    ("median", "{median_ratio:.3g}"),
    ("steps clipped", "{share_clipped:.0%}"),
    ("largest gradient norm before clipping", "{largest_gradient_norm:.3g}"),
    ("longest step / (η θ_c)", "{longest_step_ratio:.6f}"),
    ("loss before and after", "{first_loss:.3g}, {last_loss:.3g}"),
]
BIAS_COLUMNS: list[Column] = [
    ("clipped by", lambda row: clip_words(row)[0]),
    ("bound", lambda row: clip_words(row)[1]),
    ("norm of the mean / norm of BPTT", _spread("relative_norm")),
    ("cosine with BPTT", _spread("cosine")),
    ("\\|mean − BPTT\\| / \\|BPTT\\|", _spread("relative_bias")),
    ("standard error", _spread("relative_standard_error")),
]


def tables(config: Any, rows: Sequence[Row]) -> str:
    """All five."""
    arm = parse(config.clipped_arm).label
    labels = [label for _, _, label in trained(config)]
    radii = config.spectral_radii
    training = [summary(rows, label, labels[0], radius) for radius in radii for label in labels]
    sections = {
        "(i) Norm of the gradient of one sequence": _wide_table(
            select(rows, part="norms"),
            _norm_cells,
            f"Median [5 %, 95 %], and the largest, of {config.num_norm_draws} draws of weights, "
            f"sequence and boundaries. Loss: mean per step of {config.sequence_length} steps, "
            f"{config.num_rows} rows.",
        ),
        "(ii) Training by SGD": table(
            training,
            TRAINING_COLUMNS,
            f"Mean squared error of the last tenth of {config.num_sequences} sequences (predicting "
            f"the mean gives 1): median [smallest, largest] of {config.num_seeds} seeds. A run has "
            f"failed when that loss is above {FAILED_ABOVE:g} or not finite. Rate: of "
            f"{', '.join(f'{rate:g}' for rate in config.learning_rates)}, the one with the "
            f"smallest mean loss over {config.num_tuning_runs} runs that are not reported, among "
            "the rates at which none of these runs failed (\\*: at the edge of the grid). Clipped "
            f"by norm at {config.clip_norm:g}, by value at {config.clip_value:g}. Full BPTT "
            "updates once per sequence, the others once per segment.",
        ),
        "(iii) |change of the loss| ≤ L · η · θ_c": table(
            select(rows, part="bound"),
            BOUND_COLUMNS,
            f"{arm} with SGD, η = {config.bound_learning_rate:g}, clipped to a norm of θ_c = "
            f"{config.clip_norm:g}. Loss: of sequences that training does not see. L: the largest "
            "norm of its gradient along the step.",
        ),
        "(iv) Progress under clipping": _wide_table(
            select(rows, part="progress"),
            lambda row: {
                "bound on the norm": clip_words(row)[1],
                f"loss at rate {row['learning_rate']:g}": _loss(row),
            },
            f"{arm}, ρ = {config.clipping_radius:g}: loss of the last tenth of "
            f"{config.num_sequences} sequences, median [smallest, largest] of {config.num_seeds} "
            "seeds.",
        ),
        f"(iv) The mean of the clipped gradient of {arm}": table(
            select(rows, part="bias"),
            BIAS_COLUMNS,
            f"Median [smallest, largest] of {config.num_seeds} draws of weights and sequence, at "
            f"the first weights, ρ = {config.clipping_radius:g}. For each, the gradient of each "
            f"segment is clipped, those of a sequence are summed, and {config.num_bias_keys:,} "
            "draws of the boundaries are averaged. Standard error: of that mean, as a vector, "
            "relative to the norm of BPTT; the difference from BPTT is that large by chance alone.",
        ),
    }
    return "\n".join(f"## {title}\n\n{text}" for title, text in sections.items())


def _wide_table(rows: Sequence[Row], cells: Callable[[Row], Row], note: str) -> str:
    """A line for all rows with the same first cell; `cells(row)` are texts by their headings."""
    lines: dict[str, Row] = {}
    for found in map(cells, rows):
        lines.setdefault(next(iter(found.values())), {}).update(found)
    headings = next(iter(lines.values()))
    return table(list(lines.values()), [(name, itemgetter(name)) for name in headings], note)


def _norm_cells(row: Row) -> Row:
    quantiles = "{quantiles[0.5]:.2g} [{quantiles[0.05]:.2g}, {quantiles[0.95]:.2g}]"
    largest = {f"largest, {row['label']}": f"{row['largest']:.2g}"}
    return {"ρ": f"{row['spectral_radius']:g}", row["label"]: quantiles.format_map(row)} | largest


def summary(rows: Sequence[Row], label: str, first: str, radius: float) -> Row:
    """The row of the rate chosen for an arm, and its row at the rate chosen for the `first` arm.

    "stable" is the largest rate up to which no run fails.
    """
    at = {"part": "training", "spectral_radius": radius}
    own, of_first = (select(rows, **at, label=one) for one in (label, first))
    chosen = next(row for row in own if row["chosen"])
    at_first_rate = next(row for row, other in zip(own, of_first, strict=True) if other["chosen"])
    good = list(itertools.takewhile(lambda row: row["failed"] == 0, own))
    stable = f"{good[-1]['learning_rate']:g}" if good else "none"
    return chosen | {"stable": stable, "at_first_rate": at_first_rate}
