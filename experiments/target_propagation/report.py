"""The table."""

from typing import Any

from experiments.common.report import Column, Row, median_and_range
from experiments.common.tuning import rate_text, rates_text
from experiments.target_propagation.config import TARGET_RATE


def columns() -> list[Column]:
    """Of the table."""

    def penalty(row: Row) -> str:
        return rate_text(row["penalty"], row["penalty_at_edge"]) if row["penalty"] else ""

    return [
        ("gradient", "{label}"),
        ("work per step", "{evaluations:g}"),
        ("learning rate", lambda row: rate_text(row["learning_rate"], row["rate_at_edge"])),
        ("λ", penalty),
        ("sequences", "{num_sequences:,}"),
        ("test loss at equal work", lambda row: median_and_range(row["equal_work"])),
        ("test loss on as many sequences", lambda row: median_and_range(row["equal_data"])),
    ]


def note(config: Any) -> str:
    """What the table cannot hold."""
    return f"""\
A GRU of {config.hidden_size} units reads random bits and names the one of {config.lag} steps ago; \
sequences of {config.sequence_length} steps, {config.batch} side by side. Loss: nats per bit on \
{config.test_sequences * config.batch:,} new sequences, median [smallest, largest] of \
{config.num_seeds} seeds; a guess costs 0.693. Work: evaluations of the cell \
per time step, where a backward step counts two. At equal work, a training has the sequences of \
its row; in the last column it has {config.num_sequences:,}, with the same learning rate and λ. \
TBPTT K makes an update every K steps, the others one per sequence, Adam. Learning rate, of \
{rates_text(config)} (\\*: at the edge), and λ, of \
{", ".join(f"{penalty:g}" for penalty in config.penalties)}: the best at equal work in \
{config.num_tuning_runs} run(s) that are not reported. Targets take steps of gradient descent of \
size {TARGET_RATE:g}/λ."""
