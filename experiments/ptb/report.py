"""The table of a study: bits per character per method, and paired differences with intervals."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

import scipy.stats

REFERENCE = "tbptt"
LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Arm:
    """One run of a study.

    purpose: "tune" (chooses the learning rate) or "compare" (enters the comparison).
    """

    purpose: str
    method: str
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """The name of the arm's folder."""
        return f"{self.purpose}-{self.method}-rate{self.learning_rate:g}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of an arm: valid and test bits per character, or why there are none."""

    arm: Arm
    valid_bpc: float = math.nan
    test_bpc: float = math.nan
    failure: str | None = None

    def as_row(self) -> dict:
        """The outcome as a flat dict of JSON values; a missing number is None."""
        return dataclasses.asdict(self.arm) | {
            "valid_bpc": None if self.failure else self.valid_bpc,
            "test_bpc": None if self.failure else self.test_bpc,
            "failure": self.failure,
        }

    @property
    def diverged(self) -> bool:
        """Whether it failed by the method's own fault, which is a result."""
        return self.failure is not None and self.failure.startswith("diverged")


@dataclasses.dataclass(frozen=True)
class Interval:
    """Mean of n differences and the half-width of its Student-t interval (nan for n < 2)."""

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width


def student_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """mean ± t · s/√n, with t the two-sided `level` quantile at n − 1 degrees of freedom.

    Assumes independent values of one roughly normal distribution; with three seeds nothing
    checks that.
    """
    n = len(values)
    if n < 2:
        return Interval(values[0] if values else math.nan, math.nan, n)
    quantile = float(scipy.stats.t.ppf(0.5 + level / 2, n - 1))
    return Interval(statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(n), n)


def best_rate(outcomes: Sequence[Outcome], method: str) -> float | None:
    """The learning rate with the lowest validation bits among the tuning runs of `method`.

    None if no tuning run of that method has finished with a number.
    """
    tuned = [o for o in _select(outcomes, "tune", method) if o.failure is None]
    if not tuned:
        return None
    return min(tuned, key=lambda outcome: outcome.valid_bpc).arm.learning_rate


def paired_difference(outcomes: Sequence[Outcome], method: str, number: str) -> Interval:
    """`number` ("valid_bpc" or "test_bpc") of `method` minus that of TBPTT, per common seed."""

    def by_seed(name):
        chosen = _select(outcomes, "compare", name)
        return {o.arm.seed: getattr(o, number) for o in chosen if o.failure is None}

    theirs, reference = by_seed(method), by_seed(REFERENCE)
    return student_interval([theirs[s] - reference[s] for s in sorted(theirs.keys() & reference)])


def unfinished(outcomes: Sequence[Outcome], method: str, seeds: Sequence[int]) -> list[str]:
    """What keeps `method` and TBPTT from being compared on all of `seeds`: one item per run."""
    missing = []
    for name in (method, REFERENCE):
        found = {o.arm.seed: o for o in _select(outcomes, "compare", name)}
        for seed in seeds:
            outcome = found.get(seed)
            if outcome is None:
                missing.append(f"{name} has not finished on seed {seed}")
            elif outcome.failure is not None:
                what = "diverged" if outcome.diverged else "failed"
                missing.append(f"{name} {what} on seed {seed}")
    return missing


def verdict(method: str, difference: Interval, num_seeds: int, missing: Sequence[str]) -> str:
    """One sentence that claims no more than the interval supports.

    Args:
        method: compared with TBPTT.
        difference: of the pairs that have finished.
        num_seeds: pairs that were planned.
        missing: see `unfinished`. The seeds that are left are not a fair choice: nothing is
            claimed.
    """
    if missing:
        return (
            f"{method} against {REFERENCE}: {difference.n} of {num_seeds} seeds; "
            f"{', '.join(missing)}. Nothing is claimed."
        )
    if difference.n < 2:
        return (
            f"{method} against {REFERENCE}: {difference.n} of {num_seeds} seeds; at least two are "
            "needed for an interval. Nothing is claimed."
        )
    low, high = difference.low, difference.high
    measured = (
        f"{method} minus {REFERENCE}, test bits per character: {difference.mean:+.4f}, "
        f"{LEVEL:.0%} interval [{low:+.4f}, {high:+.4f}] over {difference.n} paired seeds"
    )
    if low <= 0.0 <= high:
        return f"{measured}: the interval contains zero, so these runs do not tell the two apart."
    which = "lower (better)" if high < 0.0 else "higher (worse)"
    nearest, farthest = sorted((abs(low), abs(high)))
    return (
        f"{measured}: in this setting {method} is {which} by {nearest:.4f} to {farthest:.4f}; "
        "nothing follows for other sizes, data or training lengths."
    )


def markdown(
    outcomes: Sequence[Outcome], methods: Sequence[str], seeds: Sequence[int], setting: str
) -> str:
    """The whole report: comparison, paired differences, and the tuning runs behind them."""
    lines = ["# Bits per character", "", setting, ""]
    lines += ["| method | learning rate | seed | valid bpc | test bpc |", "|---|---|---|---|---|"]
    for method in methods:
        lines += [_table_row(o) for o in _select(outcomes, "compare", method)]
    if REFERENCE in methods:
        lines += _comparison(outcomes, [m for m in methods if m != REFERENCE], seeds)
    if any(outcome.arm.purpose == "tune" for outcome in outcomes):
        lines += _tuning(outcomes, methods)
    return "\n".join(lines).rstrip() + "\n"


def _comparison(
    outcomes: Sequence[Outcome], others: Sequence[str], seeds: Sequence[int]
) -> list[str]:
    lines = [
        "",
        f"Paired difference to {REFERENCE} (mean over seeds ± half-width of the {LEVEL:.0%} "
        "Student-t interval). The interval is over initial parameters and truncation draws only:",
    ]
    lines += ["", "| method | paired seeds | valid bpc | test bpc |", "|---|---|---|---|"]
    for method in others:
        valid = paired_difference(outcomes, method, "valid_bpc")
        test = paired_difference(outcomes, method, "test_bpc")
        pairs = f"{test.n} of {len(seeds)}"
        lines.append(f"| {method} | {pairs} | {_show(valid)} | {_show(test)} |")
    lines.append("")
    for method in others:
        difference = paired_difference(outcomes, method, "test_bpc")
        missing = unfinished(outcomes, method, seeds)
        lines += [verdict(method, difference, len(seeds), missing), ""]
    return lines


def _tuning(outcomes: Sequence[Outcome], methods: Sequence[str]) -> list[str]:
    lines = [
        "The learning rate of each method was chosen by validation on one tuning seed, which is "
        "not among the seeds compared.",
        "",
        "## Learning rates tried",
        "",
        "| method | learning rate | seed | valid bpc | chosen |",
        "|---|---|---|---|---|",
    ]
    for method in methods:
        tuned = _select(outcomes, "tune", method)
        chosen, rates = best_rate(outcomes, method), [o.arm.learning_rate for o in tuned]
        for outcome in tuned:
            rate = outcome.arm.learning_rate
            at_edge = len(rates) > 1 and rate in (min(rates), max(rates))
            mark = ("yes, at the edge of the grid" if at_edge else "yes") if rate == chosen else ""
            valid = outcome.failure or f"{outcome.valid_bpc:.4f}"
            lines.append(f"| {method} | {rate:g} | {outcome.arm.seed} | {valid} | {mark} |")
    return lines


def _select(outcomes: Sequence[Outcome], purpose: str, method: str) -> list[Outcome]:
    chosen = [o for o in outcomes if (o.arm.purpose, o.arm.method) == (purpose, method)]
    return sorted(chosen, key=lambda outcome: (outcome.arm.learning_rate, outcome.arm.seed))


def _table_row(outcome: Outcome) -> str:
    arm = outcome.arm
    numbers = f"{outcome.valid_bpc:.4f} | {outcome.test_bpc:.4f}"
    if outcome.failure:
        numbers = f"{outcome.failure} | "
    return f"| {arm.method} | {arm.learning_rate:g} | {arm.seed} | {numbers} |"


def _show(interval: Interval) -> str:
    if interval.n == 0:
        return ""
    if interval.n == 1:
        return f"{interval.mean:+.4f}"
    return f"{interval.mean:+.4f} ± {interval.half_width:.4f}"
