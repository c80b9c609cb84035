"""The rows of `artbp.REGISTRY`, what each costs, and one window more.

Cost is counted in evaluations of the cell: a forward run is one, and so is a product with the
derivative of a step, forward or backward. Counted is what is done here for a cell that is a plain
function, where going back means to run each step again and then to take the product: so TBPTT
and ARTBP take three evaluations per time step, whatever their lengths.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import artbp

# Pairs of perturbations of the evolution strategies; their cost is proportional to it.
NUM_PAIRS = 8

LABELS = {
    "bptt": "BPTT, the whole stream",
    "tbptt": "TBPTT({0}, {0})",
    "tbptt_drawn_offset": "the same, offset drawn",
    "tbptt_short_window": "TBPTT({0}, {1})",
    "tbptt_stored": "TBPTT({0}, {2}), stored",
    "tbptt_past_weights": "the same, past weights",
    "tbptt_reforward": "the same, run again",
    "tbptt_window_losses": "the same, all losses of the window",
    "tbptt_matched": "TBPTT({3}, {3}), matched horizon",
    "adaptive_tbptt": "TBPTT, length adapted",
    "awd_lstm_bptt": "lengths of AWD-LSTM",
    "uncompensated_polynomial_4": "random cuts, not compensated",
    "artbp_polynomial_4": "ARTBP {0}, α = 4",
    "artbp_polynomial_6": "ARTBP {0}, α = 6",
    "artbp_geometric": "ARTBP {0}, geometric",
    "random_truncation": "random truncation, π = 1 − 1/{0}",
    "rtrl": "RTRL",
    "snap1": "SnAp-1",
    "uoro": "UORO",
    "truncated_es": "ES on {0} steps, {4} pairs",
    "pes": "PES on {0} steps, {4} pairs",
}


@dataclass(frozen=True)
class Size:
    """Of a problem: numbers in its params, and in a carry with all its rows."""

    num_params: int
    num_states: int


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Attributes:
        name: its key in `artbp.REGISTRY`, or "tbptt_matched".
        label: what a reader calls it.
        bias: what its row claims; see `artbp.estimators.registry.Row`.
        random: whether keys matter to it.
        build: `build(cell, loss_fn) -> GradientEstimator`.
        evaluations: of the cell per time step, given the size of the problem.
        chain: how many of them, per time step, wait for one another.
    """

    name: str
    label: str
    bias: str
    random: bool
    build: Callable[[Any, Any], artbp.GradientEstimator]
    evaluations: Callable[[Size], float]
    chain: float


def matched_horizon(mean_length: int, alpha: float = 4.0) -> int:
    """E[L²]/E[L] of the polynomial law: the mean length of the segment that a random step is in.

    1 + 2 (L0 − 1)(α − 2)/(α − 3), rounded, for α > 3.
    """
    return round(1 + 2 * (mean_length - 1) * (alpha - 2) / (alpha - 3))


def _evaluations_of_rtrl(size: Size) -> float:
    """A run, the product for the credit, and those that move the influence on."""
    backward = size.num_states if size.num_states < size.num_params else 0
    return 2 + size.num_params + backward


def contenders(mean_length: int) -> list[Contender]:
    """All of them, in the order of the table, with updates every `mean_length` steps on average."""
    short, twice = max(1, mean_length // 2), 2 * mean_length
    matched = matched_horizon(mean_length)
    numbers = (mean_length, short, twice, matched, NUM_PAIRS)
    back = 2  # evaluations of a step on the way back: run again, and the product

    def constant(number: float) -> Callable[[Size], float]:
        return lambda size: number

    # Every fourth estimate is measured, 4 lengths back.
    measuring = back * (4 * mean_length + 1) / (4 * mean_length)
    costs: dict[str, tuple[Callable[[Size], float], float]] = {
        name: (constant(1 + back), 2) for name in artbp.REGISTRY
    }
    costs |= {
        "tbptt_matched": (constant(1 + back), 2),
        "tbptt_short_window": (constant(1 + back * short / mean_length), 1 + back / 2),
        "tbptt_stored": (constant(1 + 2 * back), 1 + 2 * back),
        "tbptt_past_weights": (constant(1 + 2 * back), 1 + 2 * back),
        "tbptt_window_losses": (constant(1 + 2 * back), 1 + 2 * back),
        "tbptt_reforward": (constant(2 + 2 * back), 2 + 2 * back),
        "adaptive_tbptt": (constant(1 + 2 * back + measuring), 1 + 2 * back + measuring),
        "rtrl": (_evaluations_of_rtrl, 2),
        "snap1": (lambda size: 2 + size.num_params + size.num_states, 2),
        "uoro": (constant(2 + 2), 2),
        "truncated_es": (constant(2 * NUM_PAIRS + 1), 1),
        "pes": (constant(2 * NUM_PAIRS + 1), 1),
    }

    def build(name: str) -> Callable[[Any, Any], artbp.GradientEstimator]:
        if name == "tbptt_matched":
            return lambda cell, loss_fn: artbp.tbptt(cell, loss_fn, truncation_length=matched)
        options = {"num_pairs": NUM_PAIRS} if name in ("truncated_es", "pes") else {}
        row = artbp.REGISTRY[name]
        return lambda cell, loss_fn: row.build(cell, loss_fn, mean_length, **options)

    def contender(name: str) -> Contender:
        row = artbp.REGISTRY.get(name, artbp.REGISTRY["tbptt"])
        evaluations, chain = costs[name]
        label = LABELS.get(name, name).format(*numbers)
        return Contender(name, label, row.bias, row.random, build(name), evaluations, chain)

    names = [*artbp.REGISTRY]
    names.insert(names.index("adaptive_tbptt"), "tbptt_matched")
    return [contender(name) for name in names]
