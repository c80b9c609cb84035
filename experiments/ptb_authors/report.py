"""`table.md`: paired differences, the epochs at which curves cross, every run."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from experiments.common.report import Column, Row, markdown_table
from experiments.ptb_authors.arms import ARMS, PAIRS
from experiments.ptb_authors.rows import authors_curves
from experiments.ptb_authors.since_zero import OFFSETS, SEGMENT
from experiments.ptb_study.report import difference

BEST = "Each arm at its better rate"


def settings(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that are compared with each other, by words for their rate.

    After the rows at each rate come those of each arm at the rate with the lowest mean of its
    validation bits, for arms whose seeds have finished at two rates or more.
    """
    rates = sorted({row["learning_rate"] for row in rows}, reverse=True)
    found = {
        f"Rate {rate:g}": [row for row in rows if row["learning_rate"] == rate] for rate in rates
    }
    best: list[Row] = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        finished = [
            runs
            for compared in found.values()
            if (runs := of_arm(compared, arm)) and all(row["results"] for row in runs.values())
        ]
        if len(finished) >= 2 and len({frozenset(runs) for runs in finished}) == 1:
            best += min(finished, key=_mean_bits).values()
    return found | ({BEST: best} if best else {})


def _mean_bits(runs: Mapping[int, Row]) -> float:
    return statistics.fmean(NUMBERS["valid"](row) for row in runs.values())


def of_arm(rows: Sequence[Row], arm: str) -> dict[int, Row]:
    """The rows of an arm, by seed."""
    return {row["seed"]: row for row in rows if row["arm"] == arm}


def crossing(ours: Sequence[float], theirs: Sequence[float]) -> int | None:
    """The first epoch from which on `ours` is below `theirs`; None if it ends above."""
    epoch = None
    for number, (a, b) in enumerate(zip(ours, theirs, strict=False), start=1):
        epoch = (epoch or number) if a < b else None
    return epoch


# A heading, and how the number is taken from a row.
NUMBERS: dict[str, Callable[[Row], float]] = {
    "valid": lambda row: row["results"]["valid_bpc"],
    "test": lambda row: row["results"]["test_bpc"],
    "reset every 50": lambda row: row["scores"]["valid"]["reset"],
    "training text": lambda row: row["scores"]["train"]["carried"],
}


def markdown(rows: Sequence[Row], description: str, failed: Sequence[str] = ()) -> str:
    """The whole table; rows as `rows.collect` returns them. `failed`: runs that diverged or failed.

    A run that has diverged in its first epoch has no row.
    """
    parts = [f"# Penn Treebank as the ARTBP paper's authors ran it\n\n{description}"]
    for setting, compared in settings(rows).items():
        lines = [line for pair in PAIRS for line in _paired(compared, *pair)]
        if lines:
            columns: list[Column] = [("difference", "{words}"), ("meaning", "{meaning}")]
            columns += [(heading, f"{{{heading}}}") for heading in (*NUMBERS, "crossing epoch")]
            parts.append(f"## {setting}: differences\n\n" + markdown_table(lines, columns))
    curves = authors_curves()
    means = {method: found["valid"].mean(axis=0) for method, found in curves.items()}
    parts.append(
        "Bits per character, the first arm minus the second, mean over seeds ± half-width of the "
        "95 % Student-t interval where there are two or more. The width of an interval of two "
        "seeds is largely chance: compare valid with test. An arm's better rate is the one with"
        " the lower mean of valid over these same seeds, so its intervals are somewhat too narrow."
        " valid and test: the whole texts at batch 1, params of the best epoch. reset every 50: "
        "the same params, with the state set to zero every 50 symbols. training text: its first "
        "400,000 symbols in 64 columns, state carried. crossing epoch: from which on the first "
        "arm's validation bits are the lower ones, for each seed; – if they end above. In the "
        "authors' logs (1000 units, means of 6 runs) it is "
        f"{crossing(means['artbp'], means['tbptt'])} for ARTBP and TBPTT from zero."
    )
    parts.append("## Every run\n\n" + markdown_table(rows, _COLUMNS))
    parts.append(
        "valid and test at batch 1; our counting: the same bits divided by the characters without "
        "the spaces at line ends; in columns: after the best epoch, as the authors scored, in 64 "
        "columns. train, reset at …: rows of the training text, with the state set to zero at "
        "these steps. In training, TBPTT from zero does so at the steps 0, 50, … of every epoch, "
        "unless its offset is drawn. A run that is not finished has the last four, if any, from its"
        " best params so far."
    )
    if failed:
        parts.append(f"Not finished: {'; '.join(failed)}.")
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _paired(rows: Sequence[Row], first: str, second: str, meaning: str) -> list[dict[str, str]]:
    """The line of a pair; none if no seed has both, finished."""
    ours, theirs = of_arm(rows, first), of_arm(rows, second)
    seeds = [seed for seed in sorted(ours.keys() & theirs) if ours[seed]["results"]]
    seeds = [seed for seed in seeds if theirs[seed]["results"]]
    if not seeds:
        return []
    line = {"words": f"{first} − {second}", "meaning": meaning}
    for heading, number in NUMBERS.items():
        line[heading] = str(difference([number(ours[s]) - number(theirs[s]) for s in seeds]))
    epochs = [crossing(ours[s]["valid_bpc"], theirs[s]["valid_bpc"]) for s in seeds]
    return [line | {"crossing epoch": ", ".join(str(epoch or "–") for epoch in epochs)}]


def _number(form: Callable[[Row], float], needs: str = "results") -> Callable[[Row], str]:
    return lambda row: f"{form(row):.4f}" if row[needs] else ""


def _last(field: str) -> Callable[[Row], str]:
    return lambda row: f"{row[field][-1]:.4f}"


def _at_offset(i: int) -> Callable[[Row], str]:
    """Rows of earlier versions do not have it."""

    def form(row: Row) -> str:
        found = row["scores"] and row["scores"]["train"].get("by_offset")
        return f"{found[i]:.4f}" if found else ""

    return form


_COLUMNS: list[Column] = [
    ("arm", lambda row: f"{row['arm']}: `{ARMS[row['arm']].arm}`"),
    ("rate", "{learning_rate:g}"),
    ("seed", "{seed}"),
    ("epochs", lambda row: str(len(row["valid_bpc"]))),
    ("train, last epoch", _last("train_bits")),
    ("best epoch", lambda row: str(1 + row["valid_bpc"].index(min(row["valid_bpc"])))),
    ("in columns", lambda row: f"{min(row['valid_bpc']):.4f}"),
    ("valid", _number(NUMBERS["valid"])),
    ("our counting", _number(lambda r: NUMBERS["valid"](r) * r["scores"]["valid"]["counting"])),
    ("test", _number(NUMBERS["test"])),
    ("reset every 50", _number(NUMBERS["reset every 50"], needs="scores")),
    ("train, carried", _number(NUMBERS["training text"], needs="scores")),
    *((f"train, reset at {o}, {o + SEGMENT}, …", _at_offset(i)) for i, o in enumerate(OFFSETS)),
]
