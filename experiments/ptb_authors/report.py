"""`table.md`: paired differences, the epochs at which curves cross, every run."""

from collections.abc import Callable, Sequence

from experiments.common.report import Column, Row, markdown_table
from experiments.ptb_authors.arms import ARMS, AT_AUTHORS_RATE, PAIRS
from experiments.ptb_authors.rows import authors_curves
from experiments.ptb_study.report import difference


def setting(row: Row) -> str:
    """Which runs are compared with each other: those with the same words."""
    if row["purpose"] == "tune":
        return f"rate {row['learning_rate']:g}, tuning seed"
    return "rate 1e-4" if row["arm"].endswith(AT_AUTHORS_RATE) else "tuned rates"


def name(row: Row) -> str:
    """The arm's name, without its rate."""
    return row["arm"].removesuffix(AT_AUTHORS_RATE)


def of_arm(rows: Sequence[Row], arm: str, where: str) -> dict[int, Row]:
    """The rows of an arm in a setting, by seed."""
    return {row["seed"]: row for row in rows if (name(row), setting(row)) == (arm, where)}


def crossing(ours: Sequence[float], theirs: Sequence[float]) -> int | None:
    """The first epoch from which on `ours` is below `theirs`; None if it ends above."""
    epoch = None
    for number, (a, b) in enumerate(zip(ours, theirs, strict=False), start=1):
        epoch = (epoch or number) if a < b else None
    return epoch


# A heading, and how the number is taken from a row that is finished.
NUMBERS: dict[str, Callable[[Row], float]] = {
    "valid": lambda row: row["results"]["valid_bpc"],
    "reset every 50": lambda row: row["scores"]["valid"]["reset"],
    "training text": lambda row: row["scores"]["train"]["carried"],
}


def markdown(rows: Sequence[Row], description: str) -> str:
    """The whole table; rows as `rows.collect` returns them."""
    settings = sorted({setting(row) for row in rows}, reverse=True)
    parts = [f"# Penn Treebank as the ARTBP paper's authors ran it\n\n{description}"]
    for where in settings:
        lines = [line for pair in PAIRS for line in _paired(rows, where, *pair)]
        if lines:
            columns: list[Column] = [("difference", "{words}"), ("meaning", "{meaning}")]
            columns += [(heading, f"{{{heading}}}") for heading in (*NUMBERS, "crossing epoch")]
            parts.append(f"## Differences, {where}\n\n" + markdown_table(lines, columns))
    curves = authors_curves()
    means = {method: found["valid"].mean(axis=0) for method, found in curves.items()}
    parts.append(
        "Bits per character, the first arm minus the second, mean over seeds ± half-width of the "
        "95 % Student-t interval where there are two or more. valid: the whole validation text at "
        "batch 1, params of the best epoch. reset every 50: the same params, with the state set to "
        "zero every 50 symbols. training text: its first 400,000 symbols in 64 columns, state "
        "carried. crossing epoch: from which on the first arm's validation bits are the lower "
        "ones, for each seed; – if they end above. In the authors' logs (1000 units, means of 6 "
        "runs) it is "
        f"{crossing(means['artbp'], means['tbptt'])} for ARTBP and TBPTT from zero."
    )
    parts.append("## Every run\n\n" + markdown_table(rows, _COLUMNS))
    parts.append(
        "valid and test at batch 1; our counting: the same bits divided by the characters without "
        "the spaces at line ends; in columns: after the best epoch, as the authors scored, in 64 "
        "columns."
    )
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _paired(
    rows: Sequence[Row], where: str, first: str, second: str, meaning: str
) -> list[dict[str, str]]:
    """The line of a pair in a setting; none if no seed has both, finished."""
    ours, theirs = of_arm(rows, first, where), of_arm(rows, second, where)
    seeds = [seed for seed in sorted(ours.keys() & theirs) if ours[seed]["results"]]
    seeds = [seed for seed in seeds if theirs[seed]["results"]]
    if not seeds:
        return []
    line = {"words": f"{first} − {second}", "meaning": meaning}
    for heading, number in NUMBERS.items():
        line[heading] = str(difference([number(ours[s]) - number(theirs[s]) for s in seeds]))
    epochs = [crossing(ours[s]["valid_bpc"], theirs[s]["valid_bpc"]) for s in seeds]
    return [line | {"crossing epoch": ", ".join(str(epoch or "–") for epoch in epochs)}]


def _number(form: Callable[[Row], float]) -> Callable[[Row], str]:
    return lambda row: f"{form(row):.4f}" if row["results"] else ""


def _last(field: str) -> Callable[[Row], str]:
    return lambda row: f"{row[field][-1]:.4f}"


_COLUMNS: list[Column] = [
    ("arm", lambda row: f"{name(row)}: `{ARMS[row['arm']].arm}`"),
    ("rate", "{learning_rate:g}"),
    ("seed", "{seed}"),
    ("epochs", lambda row: str(len(row["valid_bpc"]))),
    ("train, last epoch", _last("train_bits")),
    ("in columns", lambda row: f"{min(row['valid_bpc']):.4f}"),
    ("valid", _number(NUMBERS["valid"])),
    ("our counting", _number(lambda r: NUMBERS["valid"](r) * r["scores"]["valid"]["counting"])),
    ("test", _number(lambda row: row["results"]["test_bpc"])),
    ("reset every 50", _number(NUMBERS["reset every 50"])),
    ("train, carried", _number(NUMBERS["training text"])),
]
