"""The table of a study: bits per character per arm, and paired differences with intervals."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from experiments.common.report import interval
from experiments.ptb_study.arms import Arm

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a study.

    purpose: "tune" (chooses the learning rate) or "compare" (enters the comparison).
    arm: name of the setting, see `arms.ARMS`.
    """

    purpose: str
    arm: str
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return f"{self.purpose}-{self.arm}-rate{self.learning_rate:g}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a run: valid and test bits per character, or why there are none."""

    run: Run
    valid_bpc: float = math.nan
    test_bpc: float = math.nan
    failure: str | None = None

    def as_row(self) -> dict:
        """The outcome as a flat dict of JSON values; a missing number is None."""
        return dataclasses.asdict(self.run) | {
            "valid_bpc": None if self.failure else self.valid_bpc,
            "test_bpc": None if self.failure else self.test_bpc,
            "failure": self.failure,
        }

    @property
    def diverged(self) -> bool:
        """Whether it failed by the arm's own fault, which is a result."""
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
    mean, half_width = interval(values, level) if len(values) else (math.nan, math.nan)
    return Interval(mean, half_width, len(values))


def best_rate(outcomes: Sequence[Outcome], arm: str) -> float | None:
    """The learning rate with the lowest mean validation bits over the tuning seeds of `arm`.

    A rate at which one of them failed is never chosen. None where there is no other.
    """
    found: dict[float, list[float]] = {}
    for outcome in select(outcomes, "tune", arm):
        bits = math.inf if outcome.failure else outcome.valid_bpc
        found.setdefault(outcome.run.learning_rate, []).append(bits)
    means = {rate: statistics.fmean(bits) for rate, bits in found.items()}
    best = min(means, key=lambda rate: means[rate], default=None)
    return None if best is None or not math.isfinite(means[best]) else best


def paired_differences(
    outcomes: Sequence[Outcome], arm: str, reference: str, number: str
) -> list[float]:
    """`number` ("valid_bpc" or "test_bpc") of `arm` minus that of `reference`, per common seed."""

    def by_seed(name: str) -> dict[int, float]:
        chosen = select(outcomes, "compare", name)
        return {o.run.seed: getattr(o, number) for o in chosen if o.failure is None}

    theirs, others = by_seed(arm), by_seed(reference)
    return [theirs[seed] - others[seed] for seed in sorted(theirs.keys() & others)]


def paired_difference(
    outcomes: Sequence[Outcome], arm: str, reference: str, number: str
) -> Interval:
    """The mean of `paired_differences`, and its interval."""
    return student_interval(paired_differences(outcomes, arm, reference, number))


def unfinished(
    outcomes: Sequence[Outcome], arm: str, reference: str, seeds: Sequence[int]
) -> list[str]:
    """What keeps `arm` and `reference` from being compared on all of `seeds`: one item per run."""
    missing = []
    for name in (arm, reference):
        found = {o.run.seed: o for o in select(outcomes, "compare", name)}
        for seed in seeds:
            outcome = found.get(seed)
            if outcome is None:
                missing.append(f"{name} has not finished on seed {seed}")
            elif outcome.failure is not None:
                what = "diverged" if outcome.diverged else "failed"
                missing.append(f"{name} {what} on seed {seed}")
    return missing


def verdict(
    arm: str, reference: str, difference: Interval, num_seeds: int, missing: Sequence[str]
) -> str:
    """One sentence that claims no more than the interval supports.

    Args:
        arm, reference: what was compared with what.
        difference: of the pairs that have finished.
        num_seeds: pairs that were planned.
        missing: see `unfinished`. The seeds that are left are not a fair choice: nothing is
            claimed.
    """
    counted = f"{arm} against {reference}: {difference.n} of {num_seeds} seeds"
    if missing:
        return f"{counted}; {', '.join(missing)}. Nothing is claimed."
    if difference.n < 2:
        return f"{counted}; at least two are needed for an interval. Nothing is claimed."
    low, high = difference.low, difference.high
    measured = (
        f"{arm} minus {reference}, test bits per character: {difference.mean:+.4f}, "
        f"{LEVEL:.0%} interval [{low:+.4f}, {high:+.4f}] over {difference.n} paired seeds"
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
    outcomes: Sequence[Outcome], arms: Mapping[str, Arm], seeds: Sequence[int], setting: str
) -> str:
    """The whole report: comparison, paired differences, and the runs behind them."""
    lines = ["# Bits per character", "", setting]
    pairs = [(name, arm.reference) for name, arm in arms.items() if arm.reference in arms]
    if pairs:
        lines += _comparison(outcomes, pairs, seeds)
    lines += ["", "## Every run", ""]
    lines += ["| arm | learning rate | seed | valid bpc | test bpc |", "|---|---|---|---|---|"]
    for name in arms:
        lines += [_table_row(o) for o in select(outcomes, "compare", name)]
    if any(outcome.run.purpose == "tune" for outcome in outcomes):
        lines += _tuning(outcomes, arms)
    return "\n".join(lines).rstrip() + "\n"


def _comparison(
    outcomes: Sequence[Outcome], pairs: Sequence[tuple[str, str]], seeds: Sequence[int]
) -> list[str]:
    lines = [
        "",
        f"Mean over seeds, and the paired difference to the reference (mean ± half-width of the "
        f"{LEVEL:.0%} Student-t interval, each interval by itself). The interval is over initial "
        "parameters and truncation draws only:",
    ]
    lines += ["", "| arm | test bpc | reference | paired seeds | difference, valid | test |"]
    lines.append("|---|---|---|---|---|---|")
    for name in dict.fromkeys(name for _, name in pairs):
        lines.append(f"| {name} | {_mean(outcomes, name)} | | | | |")
    for name, reference in pairs:
        valid = paired_difference(outcomes, name, reference, "valid_bpc")
        test = paired_difference(outcomes, name, reference, "test_bpc")
        lines.append(
            f"| {name} | {_mean(outcomes, name)} | {reference} | {test.n} of {len(seeds)} | "
            f"{_show(valid)} | {_show(test)} |"
        )
    lines.append("")
    for name, reference in pairs:
        difference = paired_difference(outcomes, name, reference, "test_bpc")
        missing = unfinished(outcomes, name, reference, seeds)
        lines += [verdict(name, reference, difference, len(seeds), missing), ""]
    return lines[:-1]


def _tuning(outcomes: Sequence[Outcome], arms: Mapping[str, Arm]) -> list[str]:
    lines = [
        "",
        "## Learning rates tried",
        "",
        "The learning rate of each arm was chosen by the mean validation bits of seeds that are "
        "not among those compared.",
        "",
        "| arm | learning rate | seed | valid bpc | chosen |",
        "|---|---|---|---|---|",
    ]
    for name in arms:
        tuned = select(outcomes, "tune", name)
        chosen, rates = best_rate(outcomes, name), [o.run.learning_rate for o in tuned]
        for outcome in tuned:
            rate = outcome.run.learning_rate
            at_edge = len(rates) > 1 and rate in (min(rates), max(rates))
            mark = ("yes, at the edge of the grid" if at_edge else "yes") if rate == chosen else ""
            valid = outcome.failure or f"{outcome.valid_bpc:.4f}"
            lines.append(f"| {name} | {rate:g} | {outcome.run.seed} | {valid} | {mark} |")
    return lines


def select(outcomes: Sequence[Outcome], purpose: str, arm: str) -> list[Outcome]:
    """The outcomes of an arm's runs of that purpose, by rate and seed."""
    chosen = [o for o in outcomes if (o.run.purpose, o.run.arm) == (purpose, arm)]
    return sorted(chosen, key=lambda outcome: (outcome.run.learning_rate, outcome.run.seed))


def _mean(outcomes: Sequence[Outcome], arm: str) -> str:
    bits = [o.test_bpc for o in select(outcomes, "compare", arm) if o.failure is None]
    return f"{statistics.fmean(bits):.4f}" if bits else ""


def _table_row(outcome: Outcome) -> str:
    run = outcome.run
    numbers = f"{outcome.valid_bpc:.4f} | {outcome.test_bpc:.4f}"
    if outcome.failure:
        numbers = f"{outcome.failure} | "
    return f"| {run.arm} | {run.learning_rate:g} | {run.seed} | {numbers} |"


def _show(interval: Interval) -> str:
    if interval.n == 0:
        return ""
    if interval.n == 1:
        return f"{interval.mean:+.4f}"
    return f"{interval.mean:+.4f} ± {interval.half_width:.4f}"
