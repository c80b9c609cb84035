"""The arms: an estimator, a cell and an optimiser each, with what they cost and store.

To add an arm, add an entry to the table in `arms`. A recurrence that needs a cell of its own gets
an entry in `experiments.long_memory.model.CELLS`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optax

import artbp
from artbp import truncation
from artbp.contrib.auxiliary_loss import Window
from experiments.common.arms import Size, parse
from experiments.common.figures import COLOURS
from experiments.long_memory.problems import LENGTH
from experiments.target_propagation.config import target_propagation

BLUE, GREEN, SKY, VERMILLION, ORANGE, PINK, BLACK, GREY = COLOURS
HAZARD = 0.5  # of the look-backs
STORED_CARRIES = 12  # beyond, a look-back runs windows again: 0.02 for each estimate
PENALTY = 10.0  # λ of target propagation
# `experiments.common.arms` counts the derivative of a step's loss once; here it counts as the
# backward step that it is, 2.
UORO = 6  # forward, backward through the step of a loss (2), a forward product, a backward one (2)
FORWARD_GRADIENT = 4  # forward, backward through the step of a loss (2), a forward product
DIAGONAL_RTRL = 6  # forward, backward through the step of a loss (2), and the influences (3)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is trained, and how.

    Attributes:
        make: `make(cell, loss_fn, **options) -> estimator`, with the option `normalizer` and, with
            a critic, `critic`.
        work: evaluations of the cell per time step, as in `experiments.common.arms`.
        window: time steps of an update, on average.
        stored: the time steps whose residuals an estimate stores, in words.
        cell: the name of an entry of `model.CELLS`.
        optimizer: made from the learning rate.
        auxiliary: which inputs a decoder predicts, "before" or "after" an anchor, or None.
    """

    label: str
    color: str
    make: Callable[..., artbp.GradientEstimator]
    work: float
    window: int
    stored: str
    cell: str = "lstm"
    optimizer: Callable[[Any], optax.GradientTransformation] = optax.adam
    has_critic: bool = False
    auxiliary: Window | None = None


def arms(window: int) -> dict[str, Arm]:
    """Returns all arms by name; truncated ones store `window` steps."""

    def of(text: str, label: str, color: str, stored: str = f"{window}", **given: Any) -> Arm:
        """An arm with an estimator of `experiments.common.arms`."""
        arm = parse(text)
        # Buffers for as many steps as the longest of its segments has.
        make = functools.partial(arm.build, **({"block_size": arm.length} if arm.law else {}))
        cost: dict[str, Any] = {
            "work": arm.evaluations(Size(0, 0)),
            "window": arm.length,
            "make": make,
        }
        return Arm(label=label, color=color, stored=stored, **(cost | given))

    full, short = f"bptt({LENGTH})", f"tbptt({window})"
    look_back_text = f"unbiased_tbptt({window}, hazard={HAZARD}, mode='reforward')"
    carries = {"stored_carries": STORED_CARRIES}
    unbiased = functools.partial(parse(look_back_text).build, **carries)
    without_look_back = functools.partial(
        artbp.unbiased_tbptt,
        law=truncation.fixed(1),
        truncation_length=window,
        mode="reforward",
        stored_carries=1,
    )
    random, immediate = parse(f"artbp({window}, alpha=4)"), parse("tbptt_1_rmsprop")
    # A step on the targets for each edge between windows.
    num_windows = max(2, LENGTH // window)
    targets = target_propagation(window, num_windows, num_windows - 1)
    diagonal = functools.partial(artbp.diagonal_rtrl, update_every=window)
    # For an anchor in a sequence: K steps of the cell and K of the decoder, forward and backward,
    # and at most K steps that run again to reach it.
    auxiliary = 3 + (2 * 3 + 1) * window / LENGTH
    stored_of_look_back = f"{window}, {2 * STORED_CARRIES} carries"
    return {
        "bptt": of(full, "full BPTT", BLACK, f"{LENGTH}"),
        "tbptt": of(short, f"TBPTT {window}", VERMILLION),
        "tbptt_1": of(
            immediate.text,
            immediate.label,
            VERMILLION,
            "1",
            optimizer=immediate.optimizer,
        ),
        "artbp": of(
            random.text,
            f"ARTBP {window}",
            BLUE,
            f"{window}, {window} carries",
            make=functools.partial(random.build, block_size=window),
            work=3 + run_again(random.law, window),
        ),
        "unbiased": of(
            look_back_text, f"unbiased TBPTT {window}", PINK, stored_of_look_back, make=unbiased
        ),
        "unbiased_critic": of(
            look_back_text,
            f"unbiased TBPTT {window}, critic",
            PINK,
            stored_of_look_back,
            make=unbiased,
            has_critic=True,
        ),
        "tbptt_critic": of(
            short,
            f"TBPTT {window}, critic",
            ORANGE,
            f"{window}, 4 carries",
            make=without_look_back,
            has_critic=True,
        ),
        "r_lstm": of(short, f"TBPTT {window}, r-LSTM", ORANGE, work=auxiliary, auxiliary="before"),
        "p_lstm": of(short, f"TBPTT {window}, p-LSTM", ORANGE, work=auxiliary, auxiliary="after"),
        "target_propagation": Arm(
            label=f"target propagation {window}",
            color=GREEN,
            make=functools.partial(targets.build, penalty=PENALTY),
            work=targets.evaluations(Size(0, 0)),
            window=targets.length,
            stored=f"{LENGTH}",
        ),
        "sab": of(full, f"SAB {window}", GREEN, f"{LENGTH}, each with a ring", cell="sab"),
        "uoro": of(f"uoro({window})", "UORO", SKY, "none", work=UORO),
        "forward_gradient": of(
            f"forward_gradient({window})", "forward gradient", SKY, "none", work=FORWARD_GRADIENT
        ),
        "gpes": of(
            f"gpes({window}, {2 * window}, num_pairs=1)", f"GPES {2 * window}", GREY, "none"
        ),
        "nres": of(f"nres({window}, num_pairs=1)", "NRES", GREY, "none"),
        "elstm_rtrl": of(
            short,
            "exact RTRL, element-wise LSTM",
            SKY,
            "none",
            cell="elementwise_lstm",
            make=diagonal,
            work=DIAGONAL_RTRL,
        ),
        "elstm_tbptt": of(
            short, f"TBPTT {window}, element-wise LSTM", VERMILLION, cell="elementwise_lstm"
        ),
        "lru": of(full, "full BPTT, LRU", BLACK, f"{LENGTH}", cell="lru"),
        "lru_tbptt": of(short, f"TBPTT {window}, LRU", VERMILLION, cell="lru"),
    }


def run_again(law: Any, block: int) -> float:
    """The share of steps whose forward pass runs twice, in segments that run in blocks.

    Every block of a segment but the last: Σ_{m ≥ 1} block · P(L > m block) / E[L].
    """
    ends = np.arange(block, 10**6, block)
    return float(block * law.survival(ends).sum() / law.survival(np.arange(10**6)).sum())
