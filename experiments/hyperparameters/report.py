"""The tables: where signs are wrong, and what each method learns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from artbp.diagnostics.interval import student_t_quantile
from experiments.common.report import Column, Row, markdown_table, quartiles

LINE_WORDS = {"constant": "a constant rate", "end": "the rate at the end"}
LEVEL = 0.95


def part(rows: Sequence[Row], name: str, problem: str | None = None) -> list[Row]:
    """The rows of one part, of one problem."""
    return [r for r in rows if r["part"] == name and problem in (None, r["problem"])]


def along(rows: Sequence[Row], problem: str, line: str, method: str) -> list[Row]:
    """The sign map of one method along one line, in the order of the rates."""
    return [r for r in part(rows, "signs", problem) if r["line"] == line and r["method"] == method]


def reach(row: Row) -> float:
    """Standard errors that an interval at the level reaches: Student's t over inner trainings, the
    normal one where the error is exact."""
    trainings = row["num_trainings"]
    return student_t_quantile(LEVEL, trainings - 1 if trainings > 1 else np.inf)


def sign_known(row: Row) -> bool:
    """Whether the slope is told from zero, given the draws and inner trainings that it is of."""
    # Errors over inner trainings hold those of the draws; the quadratic has the latter alone.
    return abs(row["slope"]) > reach(row) * (row["data_error"] or row["bias_error"])


def verdict(row: Row, truth: Row) -> str:
    """A sign beside that of full BPTT: "right", "wrong", or "unsure" where either may be chance."""
    if not (sign_known(row) and sign_known(truth)):
        return "unsure"
    return "right" if np.sign(row["slope"]) == np.sign(truth["slope"]) else "wrong"


def sign_rows(rows: Sequence[Row]) -> list[Row]:
    """For each problem, line and method: how many of the rates it has the wrong sign at."""
    found = []
    for problem in dict.fromkeys(r["problem"] for r in rows):
        signs = part(rows, "signs", problem)
        for line in LINE_WORDS:
            exact = along(rows, problem, line, "full BPTT")
            for method in dict.fromkeys(r["method"] for r in signs):
                own = along(rows, problem, line, method)
                verdicts = [verdict(r, truth) for r, truth in zip(own, exact, strict=True)]
                tested = [r for r in own if r["kind"] == "artbp"]
                found.append(
                    {
                        "problem": problem,
                        "line": line,
                        "method": method,
                        "turns_at": turning_rate(own),
                        "wrong_rates": [
                            r["rate"] for r, v in zip(own, verdicts, strict=True) if v == "wrong"
                        ],
                        "unsure": verdicts.count("unsure"),
                        "num_rates": len(own),
                        "zero_inside": sum(
                            abs(r["bias"]) <= reach(r) * r["bias_error"] for r in tested
                        ),
                        "tested": len(tested),
                        "wrong_draws": [r["wrong_draws"] for r in tested],
                    }
                )
    return found


def ran_off(row: Row, best_loss: float) -> int:
    """How many seeds of an outer training end with a loss above twice the grid's best."""
    return sum(loss is None or not loss <= 2 * best_loss for loss in row["losses"])


def turning_rate(rows: Sequence[Row]) -> float | None:
    """Where the slope first turns from "raise" to "lower", between the rates; None where never."""
    for low, high in itertools.pairwise(rows):
        if low["slope"] < 0 <= high["slope"]:
            share = -low["slope"] / (high["slope"] - low["slope"])
            return float(low["rate"] * (high["rate"] / low["rate"]) ** share)
    return None


def tables(config: Any, rows: Sequence[Row]) -> str:
    """Both tables with their notes."""
    sections = [
        "Command: `python -m experiments.hyperparameters --config "
        "configs/hyperparameters/default.py --workdir DIR`; the configuration is in config.json.",
        "## (1) Sign of the meta-gradient",
        markdown_table(sign_rows(rows), _SIGN_COLUMNS) + "\n" + _sign_note(config),
    ]
    for grid in part(rows, "landscape"):
        trained = part(rows, "training", grid["problem"])
        start, end = grid["best"]
        best = (
            f"Best of the grid: {grid['best_loss']:.4f} with rates {start:.3g} → {end:.3g} "
            f"(after the last step: {grid['best_last_loss']:.4f})."
        )
        sections += [
            f"## (2) Learning the schedule: {grid['label']}",
            markdown_table([r | {"best": grid["best_loss"]} for r in trained], _TRAINING_COLUMNS)
            + "\n"
            + best,
        ]
    return "\n\n".join([*sections, _training_note(config)])


_SIGN_COLUMNS: list[Column] = [
    ("problem", lambda r: r["problem"]),
    ("of", lambda r: LINE_WORDS[r["line"]]),
    ("method", lambda r: r["method"]),
    ("turns from raise to lower at", lambda r: _turn(r["turns_at"])),
    ("wrong sign", lambda r: f"{len(r['wrong_rates'])} of {r['num_rates']} rates"),
    ("not told", lambda r: str(r["unsure"])),
    ("wrong at rates", lambda r: _range(r["wrong_rates"])),
    (
        "bias: zero inside the interval",
        lambda r: f"{r['zero_inside']} of {r['tested']}" if r["tested"] else "",
    ),
    ("single draws with a wrong sign", lambda r: _shares(r["wrong_draws"])),
]

_TRAINING_COLUMNS: list[Column] = [
    ("method", lambda r: r["method"]),
    ("loss", lambda r: _spread(r["losses"], ".4f")),
    ("above the grid's best", lambda r: f"{np.median(r['losses']) / r['best'] - 1:+.1%}"),
    ("after the last step", lambda r: f"{np.median(r['last_losses']):.4f}"),
    ("rate at the start", lambda r: _spread([pair[0] for pair in r["rates"]], ".3g")),
    ("rate at the end", lambda r: _spread([pair[1] for pair in r["rates"]], ".2g")),
    ("ran off", lambda r: f"{ran_off(r, r['best'])} of {len(r['losses'])}"),
    ("outer rate", lambda r: f"{r['outer_rate']:g}" + " (edge)" * r["at_edge"]),
    ("loss at each outer rate", lambda r: ", ".join(_number(x) for x in r["losses_by_outer_rate"])),
    ("updates", lambda r: f"{r['num_updates']:,}"),
    ("evaluations", lambda r: f"{r['evaluations']} × {r['inner_steps']:,}"),
]


def _turn(rate: float | None) -> str:
    return "not in the range" if rate is None else f"{rate:.2g}"


def _range(rates: Sequence[float]) -> str:
    if not rates:
        return ""
    return f"{rates[0]:.2g}" + (f" to {rates[-1]:.2g}" if len(rates) > 1 else "")


def _shares(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{np.median(values):.0%} [{min(values):.0%}, {max(values):.0%}]"


def _number(value: float | None) -> str:
    if value is not None and 1000 <= value < np.inf:
        return f"{value:.0e}"
    return "∞" if value is None or not np.isfinite(value) else f"{value:.3f}"


def _spread(values: Sequence[float], form: str) -> str:
    low, high = min(values), max(values)
    middle = f"{quartiles(np.array(values))[1]:{form}}"
    return middle if low == high else f"{middle} [{low:{form}}, {high:{form}}]"


def _sign_note(config: Any) -> str:
    return f"""\
The slope of the mean meta loss per inner step in the logarithm of a rate, at \
{config.num_sign_points} rates from {config.start_range[0]:g} to {config.start_range[1]:g} \
(constant: the same at all steps) or from {config.end_range[0]:g} to {config.end_range[1]:g} (at \
the end of a geometric schedule that starts at the rate of the grid's best). A wrong sign sends \
the rate away from where the loss is less; not told: zero is inside the interval of the slope, of \
full BPTT or of the method. On the quadratic all slopes but ARTBP's are exact, ARTBP's are means \
of {config.num_exact_draws:,} draws with the exact standard error. On the network they are means \
of {config.num_sign_trainings} inner trainings, ARTBP with {config.num_draws} draws on each, and \
its standard error is that of the differences from full BPTT. Intervals: {LEVEL:.0%} for each by \
itself, so that one in twenty misses by chance (draws are new at each rate); normal where the \
standard error is exact, else Student's t over inner trainings. Single draws: the share of another \
sign than full BPTT of the same inner training, median [least, most] over the rates."""


def _training_note(config: Any) -> str:
    return f"""\
Loss: meta loss after each step, mean over the steps of whole inner trainings, above its \
minimum; the same {config.num_scoring} inner trainings of the network score every schedule, the \
grid's too. The streams sum it over all steps, so every step counts, not the last alone. Median \
[smallest, largest] of {config.num_seeds} seeds; methods without chance need one on the \
quadratic, and there their outer rate is chosen on what is reported. Elsewhere it is the best of \
{", ".join(f"{r:g}" for r in config.outer_rates)} on {config.num_tuning_seeds} other seeds; \
(edge): the first or the last of these. Ran off: the loss is above twice the grid's best. Every \
training has the same {config.num_trainings} inner trainings from the rates \
{config.first_rate:g} → {config.first_rate:g}. Evaluations: of the inner step per inner step, a \
derivative counted as two."""
