"""The table of a study: bits per character per arm, and paired differences with intervals.

The rows are those of `results.json`: the fields of `Run`, and "valid_bpc", "test_bpc" and
"failure", of which the last or the other two are None.
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.common import tuning
from experiments.common.report import Column, Row, interval, markdown_table

LEVEL = 0.95


class Run(NamedTuple):
    """One run of a study."""

    purpose: str  # "tune" (chooses the learning rate) or "compare" (enters the comparison)
    arm: str  # its name in `study.ARMS`
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return f"{self.purpose}-{self.arm}-rate{self.learning_rate:g}-seed{self.seed}"

    def row(self, valid_bpc: Any = None, test_bpc: Any = None, failure: str | None = None) -> Row:
        """The row of the finished run."""
        outcome = {"valid_bpc": valid_bpc, "test_bpc": test_bpc, "failure": failure}
        return self._asdict() | outcome


class Difference(NamedTuple):
    """Mean of n paired differences, and the half-width of its Student-t interval."""

    mean: float
    half_width: float
    n: int

    def __str__(self) -> str:
        half_width = f" ± {self.half_width:.4f}" if self.n > 1 else ""
        return f"{self.mean:+.4f}{half_width}" if self.n else ""


def run_of(row: Row) -> Run:
    """The run of a row."""
    return Run(*(row[field] for field in Run._fields))


def diverged(row: Row) -> bool:
    """Whether training diverged, which is a result; other failures are none."""
    return (row["failure"] or "").startswith("diverged")


def runs_of_arm(
    rows: Sequence[Row], purpose: str, arm: str, *, finished: bool = False
) -> list[Row]:
    """The rows of an arm's runs of that purpose, by rate and seed; `finished`: without failures."""
    chosen = [row for row in rows if (row["purpose"], row["arm"]) == (purpose, arm)]
    chosen = [row for row in chosen if not (finished and row["failure"])]
    return sorted(chosen, key=lambda row: (row["learning_rate"], row["seed"]))


def choose_rate(rows: Sequence[Row], arm: str) -> tuning.Choice | None:
    """The rate that the tuning runs of `arm` choose; None where there is no such run.

    A rate at which one of them has failed, or is missing, is never chosen.
    """
    tuned = runs_of_arm(rows, "tune", arm)
    valid = {(r["seed"], r["learning_rate"]): r["valid_bpc"] for r in tuned if not r["failure"]}
    seeds, rates = (sorted({row[field] for row in tuned}) for field in ("seed", "learning_rate"))
    losses = [[valid.get((seed, rate), math.inf) for rate in rates] for seed in seeds]
    return tuning.choose_rate(rates, losses) if rates else None


def paired_differences(
    rows: Sequence[Row], arm: str, reference: str, number: str = "test_bpc"
) -> list[float]:
    """`number` ("valid_bpc" or "test_bpc"), `arm` minus `reference`, for each common seed."""
    ours, theirs = (
        {row["seed"]: row[number] for row in runs_of_arm(rows, "compare", name, finished=True)}
        for name in (arm, reference)
    )
    return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs)]


def difference(values: Sequence[float]) -> Difference:
    """The mean with its interval; with three seeds nothing checks that they are normal."""
    mean, half_width = interval(values, LEVEL) if len(values) else (math.nan, math.nan)
    return Difference(mean, half_width, len(values))


def unfinished(rows: Sequence[Row], arm: str, reference: str, seeds: Sequence[int]) -> list[str]:
    """The runs without which the two cannot be compared on all of `seeds`: one item per run."""
    missing = []
    for name in (arm, reference):
        found = {row["seed"]: row for row in runs_of_arm(rows, "compare", name)}
        for seed in seeds:
            if seed not in found:
                missing.append(f"{name} has not finished on seed {seed}")
            elif found[seed]["failure"]:
                what = "diverged" if diverged(found[seed]) else "failed"
                missing.append(f"{name} {what} on seed {seed}")
    return missing


def verdict(
    arm: str, reference: str, found: Difference, num_seeds: int, missing: Sequence[str]
) -> str:
    """One sentence that claims no more than the interval supports.

    Nothing is claimed where runs are `missing`, because the remaining seeds are no fair choice.
    """
    if missing or found.n < 2:
        reason = ", ".join(missing) or "at least two are needed for an interval"
        counted = f"{arm} against {reference}: {found.n} of {num_seeds} seeds"
        return f"{counted}; {reason}. Nothing is claimed."
    low, high = found.mean - found.half_width, found.mean + found.half_width
    measured = (
        f"{arm} minus {reference}, test bits per character: {found.mean:+.4f}, "
        f"{LEVEL:.0%} interval [{low:+.4f}, {high:+.4f}] over {found.n} paired seeds"
    )
    if low <= 0.0 <= high:
        return f"{measured}: the interval contains zero, so these runs do not tell the two apart."
    which = "lower (better)" if high < 0.0 else "higher (worse)"
    nearest, farthest = sorted((abs(low), abs(high)))
    return (
        f"{measured}: in this setting {arm} is {which} by {nearest:.4f} to {farthest:.4f}; "
        "nothing follows for other sizes, data or training lengths."
    )


def markdown(
    rows: Sequence[Row], references: Mapping[str, str | None], seeds: Sequence[int], setting: str
) -> str:
    """The whole report: comparison, paired differences, and the runs behind them.

    references: the arms, each with the one whose bits are subtracted from its own, if any.
    """
    paired = {name: other for name, other in references.items() if other in references}
    sections = [f"# Bits per character\n\n{setting}"]
    if paired:
        sections.append(_comparison(rows, paired, seeds))
    compared, tuned = (
        [row for name in references for row in runs_of_arm(rows, purpose, name)]
        for purpose in ("compare", "tune")
    )
    columns: list[Column] = [
        ("arm", "{arm}"),
        ("learning rate", "{learning_rate:g}"),
        ("seed", "{seed}"),
        ("valid bpc", lambda row: row["failure"] or f"{row['valid_bpc']:.4f}"),
    ]
    test: Column = ("test bpc", lambda row: "" if row["failure"] else f"{row['test_bpc']:.4f}")
    sections.append("## Every run\n\n" + markdown_table(compared, [*columns, test]))
    choices = {name: choose_rate(rows, name) for name in references}

    def chosen(row: Row) -> str:
        choice = choices[row["arm"]]
        if choice is None or choice.failed or choice.rate != row["learning_rate"]:
            return ""
        return "yes" + ", at the edge of the grid" * (choice.at_edge and len(choice.scores) > 1)

    if tuned:
        sections.append(
            "## Learning rates tried\n\nThe learning rate of each arm was chosen by the mean "
            "validation bits of seeds that are not among those compared.\n\n"
            + markdown_table(tuned, [*columns, ("chosen", chosen)])
        )
    return "\n\n".join(section.rstrip() for section in sections) + "\n"


def _comparison(rows: Sequence[Row], paired: Mapping[str, str], seeds: Sequence[int]) -> str:
    headings = ("arm", "test bpc", "reference", "paired seeds", "difference, valid", "test")
    lines, verdicts = [], []
    for name in dict.fromkeys([*paired.values(), *paired]):
        bits = [row["test_bpc"] for row in runs_of_arm(rows, "compare", name, finished=True)]
        cells = [name, f"{statistics.fmean(bits):.4f}" if bits else ""]
        if reference := paired.get(name):
            valid, test = (
                difference(paired_differences(rows, name, reference, number))
                for number in ("valid_bpc", "test_bpc")
            )
            cells += [reference, f"{test.n} of {len(seeds)}", str(valid), str(test)]
            missing = unfinished(rows, name, reference, seeds)
            verdicts.append(verdict(name, reference, test, len(seeds), missing))
        lines.append(dict(itertools.zip_longest(headings, cells, fillvalue="")))
    table = markdown_table(lines, [(heading, f"{{{heading}}}") for heading in headings])
    return (
        "Mean over seeds, and the paired difference to the reference (mean ± half-width of the "
        f"{LEVEL:.0%} Student-t interval, each interval by itself). The interval is over initial "
        f"parameters and truncation draws only:\n\n{table}\n" + "\n\n".join(verdicts)
    )
