"""The tables: where signs are wrong, and what each arm learns."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from artbp.diagnostics.interval import student_t_quantile
from experiments.common.report import Column, Row, markdown_table, median_and_range, select
from experiments.common.tuning import rate_text

LINE_WORDS = {"constant": "a constant rate", "end": "the rate at the end"}
LEVEL = 0.95


def sign_map(rows: Sequence[Row], problem: str, line: str) -> dict[str, list[Row]]:
    """For each arm by its label, full BPTT first: the rows along one line, by rising rates."""
    found: dict[str, list[Row]] = {}
    for row in select(rows, part="signs", problem=problem, line=line):
        found.setdefault(row["label"], []).append(row)
    return found


def reach(row: Row) -> float:
    """Half-width of an interval in standard errors: Student's t, or normal where that is exact."""
    return student_t_quantile(LEVEL, row["num_trainings"] - 1 or np.inf)


def sign_known(row: Row) -> bool:
    """Whether the interval of the slope leaves out zero."""
    # Errors over inner trainings hold those of the draws; the quadratic has the latter alone.
    return abs(row["slope"]) > reach(row) * (row["data_error"] or row["bias_error"])


def verdict(row: Row, truth: Row) -> str:
    """A sign beside that of full BPTT: "right", "wrong", or "unsure" where either may be chance."""
    if not (sign_known(row) and sign_known(truth)):
        return "unsure"
    return "right" if np.sign(row["slope"]) == np.sign(truth["slope"]) else "wrong"


def sign_rows(rows: Sequence[Row]) -> list[Row]:
    """For each problem, line and arm: at how many of the rates it has the wrong sign."""
    problems, found = dict.fromkeys(row["problem"] for row in rows), []
    for problem, line in itertools.product(problems, LINE_WORDS):
        of_arms = sign_map(rows, problem, line)
        for label, own in of_arms.items():
            exact = next(iter(of_arms.values()))
            verdicts = [verdict(row, truth) for row, truth in zip(own, exact, strict=True)]
            tested = [row for row in own if row["random"]]
            unbiased = [abs(row["bias"]) <= reach(row) * row["bias_error"] for row in tested]
            wrong = [row["rate"] for row, v in zip(own, verdicts, strict=True) if v == "wrong"]
            row = {"problem": problem, "line": line, "label": label, "turns_at": turning_rate(own)}
            row |= {"wrong_rates": wrong, "unsure": verdicts.count("unsure"), "num_rates": len(own)}
            row |= {"zero_inside": sum(unbiased), "tested": len(tested)}
            found.append(row | {"wrong_draws": [r["wrong_draws"] for r in tested]})
    return found


def ran_off(row: Row, best_loss: float) -> int:
    """How many runs of an outer training end with a loss above twice the grid's best."""
    return sum(loss is None or not loss <= 2 * best_loss for loss in row["losses"])


def turning_rate(rows: Sequence[Row]) -> float | None:
    """Where the slope first turns from "raise" to "lower", between the rates; None where never."""
    for low, high in itertools.pairwise(rows):
        if low["slope"] < 0 <= high["slope"]:
            share = -low["slope"] / (high["slope"] - low["slope"])
            return float(low["rate"] * (high["rate"] / low["rate"]) ** share)
    return None


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole}" if whole else ""


def _wrong_at(row: Row) -> str:
    ends = dict.fromkeys(row["wrong_rates"][i] for i in (0, -1) if row["wrong_rates"])
    return " to ".join(f"{rate:.2g}" for rate in ends)


def _loss(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return "∞"
    return f"{value:.0e}" if value >= 1000 else f"{value:.3f}"


_SIGN_COLUMNS: list[Column] = [
    ("problem", "{problem}"),
    ("of", lambda r: LINE_WORDS[r["line"]]),
    ("method", "{label}"),
    (
        "turns from raise to lower at",
        lambda r: "not in the range" if r["turns_at"] is None else f"{r['turns_at']:.2g}",
    ),
    ("wrong sign", lambda r: _of(len(r["wrong_rates"]), r["num_rates"]) + " rates"),
    ("not told", "{unsure}"),
    ("wrong at rates", _wrong_at),
    ("bias: zero inside the interval", lambda r: _of(r["zero_inside"], r["tested"])),
    (
        "single draws with a wrong sign",
        lambda r: median_and_range(r["wrong_draws"], "{:.0%}") if r["tested"] else "",
    ),
]

_TRAINING_COLUMNS: list[Column] = [
    ("method", "{label}"),
    ("loss", lambda r: median_and_range(r["losses"], "{:.4f}")),
    ("above the grid's best", lambda r: f"{np.median(r['losses']) / r['best'] - 1:+.1%}"),
    ("after the last step", lambda r: f"{np.median(r['last_losses']):.4f}"),
    ("rate at the start", lambda r: median_and_range([pair[0] for pair in r["rates"]], "{:.3g}")),
    ("rate at the end", lambda r: median_and_range([pair[1] for pair in r["rates"]], "{:.2g}")),
    ("ran off", lambda r: _of(ran_off(r, r["best"]), len(r["losses"]))),
    ("outer rate", lambda r: rate_text(r["outer_rate"], r["at_edge"])),
    ("loss at each outer rate", lambda r: ", ".join(map(_loss, r["losses_by_outer_rate"]))),
    ("updates", "{num_updates:,}"),
    ("evaluations", "{evaluations:.3g} × {inner_steps:,}"),
]


def tables(config: Any, rows: Sequence[Row]) -> str:
    """Both tables with their notes."""
    signs = markdown_table(sign_rows(rows), _SIGN_COLUMNS)
    sections = ["## (1) Sign of the meta-gradient", f"{signs}\n{_sign_note(config)}"]
    for grid in select(rows, part="landscape"):
        trained = select(rows, part="training", problem=grid["problem"])
        learned = [row | {"best": grid["best_loss"]} for row in trained]
        start, end = grid["best"]
        sections.append(f"## (2) Learning the schedule: {grid['label']}")
        sections.append(
            f"{markdown_table(learned, _TRAINING_COLUMNS)}\nBest of the grid: "
            f"{grid['best_loss']:.4f} with rates {start:.3g} → {end:.3g} "
            f"(after the last step: {grid['best_last_loss']:.4f})."
        )
    return "\n\n".join([*sections, _training_note(config)])


def _sign_note(config: Any) -> str:
    starts, ends = (f"{low:g} to {high:g}" for low, high in (config.start_range, config.end_range))
    return f"""\
The slope of the mean meta loss per inner step in the logarithm of a rate, at \
{config.num_sign_points} rates from {starts} (constant) or from {ends} (at the end of a schedule \
that starts at the rate of the grid's best). A wrong sign sends the rate away from less loss. Not \
told: zero is inside the interval of the slope, of full BPTT or of the method. On the quadratic, \
the slopes of ARTBP and unbiased TBPTT are means of {config.num_exact_draws:,} draws with the \
exact standard error; all others are exact. On the network, slopes are means of \
{config.num_sign_trainings} inner trainings, for ARTBP and unbiased TBPTT with \
{config.num_draws} draws on each; their bias has the error of the differences from full BPTT. \
Intervals: {LEVEL:.0%} each, so that one in twenty misses by chance. Single draws: the share of \
another sign than full BPTT of the same inner training, median [least, \
most] over the rates."""


def _training_note(config: Any) -> str:
    return f"""\
Loss: the meta loss above its minimum, mean over all steps of inner trainings; \
{config.num_scoring} of the network score every schedule and the grid. Median [least, most] of \
{config.num_seeds} runs. Outer rate: the best of \
{", ".join(f"{r:g}" for r in config.outer_rates)} by the mean loss of {config.num_tuning_runs} \
other runs (\\*: at the edge of the grid). On the quadratic, methods without randomness have one \
run, which also chooses their rate. Ran off: the loss is above twice the grid's best. Every run \
has {config.num_trainings} inner trainings and starts from the rate {config.first_rate:g}. \
Evaluations: of the inner step per inner step; a derivative counts as two."""
