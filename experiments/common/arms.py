"""One specification of an estimator: an `Arm`, written in a configuration as text.

    config.arms = ("artbp(16, alpha=4)", "tbptt(50)", "tbptt_k1_k2(10, 20, mode='past_weights')")

    arm = parse("artbp(16, alpha=4)")
    estimator = arm.build(cell, loss_fn, normalizer=16.0 * rows)
    arm.label, arm.color, arm.law, arm.length, arm.evaluations(size)

Each function marked `@_estimator` is one entry of the table `ESTIMATORS`; its arguments are those
that the text may give. To add an estimator, write one more such function. Its cost stands beside
it, so that it cannot be charged the cost of another one.

Cost is counted in evaluations of the cell per time step. A forward step counts one, and so does a
product with the derivative of a step, forward or backward. The counts hold for a cell that is a
plain function: the backward pass then runs each step again and takes the product, which is two.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from artbp import REGISTRY, estimators, truncation
from artbp.estimators.tbptt_k1_k2 import Losses, Mode
from experiments.common import arm as _arm
from experiments.common.arm import Arm, Size, kilobytes, named
from experiments.common.figures import COLOURS

__all__ = ["ESTIMATORS", "GREY", "Arm", "Size", "kilobytes", "matched_horizon", "named", "parse"]

_BLUE, _GREEN, _SKY, _VERMILLION, _ORANGE, _PINK, _BLACK, GREY = COLOURS
_BACKWARD = 2  # evaluations of a backward step: run again, and the product
_MODE_WORDS = {"stored": "stored", "past_weights": "past weights", "reforward": "run again"}


ESTIMATORS: dict[str, Callable[..., Arm]] = {}


def _estimator(entry: Callable[..., Arm]) -> Callable[..., Arm]:
    ESTIMATORS[entry.__name__] = named(entry)
    return ESTIMATORS[entry.__name__]


def parse(text: str, own: Mapping[str, Callable[..., Arm]] | None = None) -> Arm:
    """The arm that `text` describes: a call of an entry of the table, with literal arguments.

    Args:
        text: such as "artbp(50, alpha=4)".
        own: entries that only one experiment has, each made by `named`.

    Raises:
        ConfigError: no such call, an unknown estimator or argument, or a value that it refuses.
    """
    return _arm.parse(text, ESTIMATORS | dict(own or {}))


def matched_horizon(mean_length: float, alpha: float = 4.0) -> int:
    """E[L²]/E[L] of the polynomial law: the mean length of the segment that a random step is in.

    1 + 2 (L0 − 1)(α − 2)/(α − 3), rounded, for α > 3.
    """
    return round(1 + 2 * (mean_length - 1) * (alpha - 2) / (alpha - 3))


def _constant(evaluations: float) -> Callable[[Size], float]:
    return lambda size: evaluations


def _segments(*, claims: str, **given: Any) -> Arm:
    """An arm whose gradient comes in segments that do not overlap: three evaluations a step."""
    cost: dict[str, Any] = {"evaluations": _constant(1 + _BACKWARD), "chain": 2}
    return Arm(claims=REGISTRY[claims], **cost, **given)


def _steps(claims: str, length: int, **given: Any) -> Arm:
    """An arm that the registry builds from the number of steps between updates."""
    truncation.fixed(length)  # refuses a length that is no number of steps
    make = functools.partial(REGISTRY[claims].build, mean_length=length)
    defaults: dict[str, Any] = {
        "claims": REGISTRY[claims],
        "make": make,
        "color": _GREEN,
        "chain": 2,
    }
    return Arm(length=length, **(defaults | given))


@_estimator
def bptt(length: int | None = None) -> Arm:
    """Full BPTT: one update per stream or, with `length`, one per sequence of a stream that is
    reset every `length` steps."""
    if length is not None:
        return replace(tbptt(length), label="full BPTT", color=_BLACK, claims=REGISTRY["bptt"])
    return _segments(
        make=estimators.bptt,
        claims="bptt",
        label="full BPTT",
        color=_BLACK,
        length=None,
        law=truncation.never(),
    )


@_estimator
def tbptt(length: int, draw_offset: bool = False) -> Arm:
    """Truncated BPTT with segments of `length` steps."""
    return _segments(
        make=functools.partial(estimators.tbptt, truncation_length=length, draw_offset=draw_offset),
        claims="tbptt_drawn_offset" if draw_offset else "tbptt",
        label=f"TBPTT {length}{', offset drawn' if draw_offset else ''}",
        color=_VERMILLION,
        length=length,
        law=truncation.fixed(length),
    )


@_estimator
def tbptt_k1_k2(k1: int, k2: int, mode: Mode = "stored", losses: Losses = "new") -> Arm:
    """Truncated BPTT with an update every `k1` steps, through the last `k2` steps."""
    for k in (k1, k2):
        truncation.fixed(k)
    if mode not in _MODE_WORDS:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(_MODE_WORDS)}")
    words = f", {_MODE_WORDS[mode]}" if k2 > k1 else ""
    claims = f"tbptt_{mode}"
    if losses == "window":
        claims = "tbptt_window_losses"
        words = f"{words.removesuffix(', stored')}, all losses of the window"
    elif k2 < k1:
        claims = "tbptt_short_window"
    forward = max(1.0, k2 / k1) if mode == "reforward" else 1.0
    evaluations = forward + _BACKWARD * k2 / k1
    return Arm(
        make=functools.partial(estimators.tbptt_k1_k2, k1=k1, k2=k2, mode=mode, losses=losses),
        claims=REGISTRY[claims],
        label=f"TBPTT({k1}, {k2}){words}",
        color=_VERMILLION,
        length=k1,
        evaluations=_constant(evaluations),
        chain=evaluations,
    )


@_estimator
def adaptive_tbptt(length: int) -> Arm:
    """Truncated BPTT whose length adapts, `length` at first. It is charged as if it stayed there.

    Every fourth estimate is measured, 4 lengths back.
    """
    cost = 1 + 2 * _BACKWARD + _BACKWARD * (4 * length + 1) / (4 * length)
    return _steps(
        "adaptive_tbptt",
        length,
        label="TBPTT, length adapted",
        color=_VERMILLION,
        evaluations=_constant(cost),
        chain=cost,
    )


@_estimator
def awd_lstm_bptt(length: int) -> Arm:
    """Truncated BPTT with lengths drawn around `length`, as AWD-LSTM draws them."""
    return _steps(
        "awd_lstm_bptt",
        length,
        label="lengths of AWD-LSTM",
        color=_VERMILLION,
        evaluations=_constant(1 + _BACKWARD),
    )


@_estimator
def artbp(length: float, alpha: float | None = None, law: str | None = None) -> Arm:
    """ARTBP with mean length `length`: the polynomial law with `alpha`, or `law="geometric"`."""
    lengths, words = _law(length, alpha, law)
    return _segments(
        make=lambda cell, loss_fn, **options: estimators.artbp(cell, loss_fn, lengths, **options),
        claims="artbp_geometric" if law else "artbp_polynomial_4",
        label=f"ARTBP {length:g}, {words}",
        color=_SKY if law else _BLUE,
        length=length,
        law=lengths,
    )


@_estimator
def uncompensated(length: float, alpha: float | None = None, law: str | None = None) -> Arm:
    """The random boundaries of ARTBP without the compensation: a control."""
    arm, (_, words) = artbp(length, alpha, law), _law(length, alpha, law)
    return replace(
        arm,
        make=functools.partial(arm.make, compensate=False),
        claims=REGISTRY["uncompensated_polynomial_4"],
        label=f"No compensation {length:g}, {words}",
        color=_ORANGE,
    )


def _law(length: float, alpha: float | None, law: str | None) -> Any:
    if alpha is not None and law is None:
        return truncation.polynomial(length, alpha), f"α = {alpha:g}"
    if alpha is None and law == "geometric":
        return truncation.geometric(length), "geometric"
    raise ValueError(
        f"alpha={alpha!r} and law={law!r} were given: expected alpha, for the polynomial law, or "
        "law='geometric'"
    )


@_estimator
def random_truncation(length: float) -> Arm:
    """BPTT in which the gradient goes on with probability 1 − 1/`length`, and is scaled up."""
    return _segments(
        make=functools.partial(REGISTRY["random_truncation"].build, mean_length=length),
        claims="random_truncation",
        label=f"random truncation, π = 1 − 1/{length:g}",
        color=_SKY,
        length=length,
        law=truncation.geometric(length),
    )


@_estimator
def rtrl(length: int) -> Arm:
    """Real-time recurrent learning with an update every `length` steps.

    A step is run, its loss differentiated, and the influence of each parameter moved on.
    """

    def evaluations(size: Size) -> float:
        backward = size.num_states if size.num_states < size.num_params else 0
        return 2 + size.num_params + backward

    return _steps("rtrl", length, label="RTRL", evaluations=evaluations)


@_estimator
def snap1(length: int) -> Arm:
    """RTRL that keeps only the influences which arise within one step."""

    def evaluations(size: Size) -> float:
        return 2 + size.num_params + size.num_states

    return _steps("snap1", length, label="SnAp-1", evaluations=evaluations)


@_estimator
def uoro(length: int) -> Arm:
    """UORO, RTRL with an unbiased rank-one influence; an update every `length` steps."""
    return _steps("uoro", length, label="UORO", evaluations=_constant(4))


@_estimator
def truncated_es(length: int, num_pairs: int = 8, scale: float = 0.01) -> Arm:
    """Evolution strategies on unrolls of `length` steps, each with new perturbations."""
    return _strategy("truncated_es", "ES", length, num_pairs, scale)


@_estimator
def pes(length: int, num_pairs: int = 8, scale: float = 0.01) -> Arm:
    """Persistent evolution strategies on unrolls of `length` steps."""
    return _strategy("pes", "PES", length, num_pairs, scale)


def _strategy(name: str, words: str, length: int, num_pairs: int, scale: float) -> Arm:
    """Every particle and the unperturbed system run forward; no derivative is taken."""
    arm = _steps(
        name,
        length,
        label=f"{words} {length}, {num_pairs} pairs",
        color=_PINK,
        evaluations=_constant(2 * num_pairs + 1),
        chain=1,
    )
    return replace(arm, make=functools.partial(arm.make, num_pairs=num_pairs, scale=scale))
