"""Builds estimators from texts, as the configurations of experiments name them.

    config.arms = ("artbp(16, alpha=4)", "tbptt(50)", "tbptt_k1_k2(10, 20, mode='past_weights')")

    arm = parse("artbp(16, alpha=4)")
    estimator = arm.build(cell, loss_fn, normalizer=16.0 * rows)
    arm.label, arm.color, arm.law, arm.length, arm.evaluations(size)

Each function marked `@_estimator` is one entry of the table `ESTIMATORS`; its arguments are those
that the text may give. To add an estimator, write one more such function. Its cost stands in the
same place, so that no estimator is charged the cost of another one.

Cost is counted in evaluations of the cell per time step. A forward step counts one, and so does a
product with the derivative of a step, forward or backward. The counts hold for a cell that is a
plain function: the backward pass then runs each step again and takes the product, which is two.
"""

import ast
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, get_args

import jax
import optax

from artbp import REGISTRY, EstimatorSpec, GradientEstimator, estimators, truncation
from artbp.estimators.segmentwise import SegmentStart
from artbp.estimators.tbptt_k1_k2 import Losses, Mode
from artbp.estimators.unbiased_tbptt import Mode as LookBackMode
from experiments.common.errors import ConfigError
from experiments.common.figures import COLOURS

_BLUE, _GREEN, _SKY, _VERMILLION, _ORANGE, _PINK, _BLACK, GREY = COLOURS
_BACKWARD = 2  # evaluations of a backward step: run again, and the product
_MODE_WORDS = {"stored": "stored", "past_weights": "past weights", "reforward": "run again"}


class Size(NamedTuple):
    """The numbers in the params, and in a carry with all its rows."""

    num_params: int
    num_states: int


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An estimator as an experiment compares it. Two arms with equal texts are equal.

    Attributes:
        text: the arm as `parse` reads it, in one standard form.
        name: its entry in the table.
        arguments: the arguments of that entry by name, defaults included.
        make: `make(cell, loss_fn, **options) -> GradientEstimator`.
        claims: what holds for it, as an entry of `artbp.REGISTRY` says it: bias, randomness.
        label: for tables and figures.
        color: of its family; a figure with several arms of a family uses `figures.colors`.
        length: time steps between updates, on average; None for one update per stream.
        evaluations: `evaluations(size) -> number` of the cell per time step.
        chain: how many of these, per time step, wait for one another.
        law: the law of the segment lengths; None where gradients do not come in segments.
        look_back: the law of the look-backs, in windows; None where there are none.
        optimizer: `optimizer(rate)` takes the place of Adam where an experiment trains with Adam.
    """

    text: str = ""
    name: str = field(default="", compare=False)
    arguments: Mapping[str, Any] = field(default_factory=dict, compare=False)
    make: Callable[..., GradientEstimator] = field(compare=False)
    claims: EstimatorSpec = field(compare=False)
    label: str = field(compare=False)
    color: str = field(compare=False)
    length: Any = field(compare=False)
    evaluations: Callable[[Size], float] = field(compare=False)
    chain: float = field(compare=False)
    law: truncation.TruncationLaw | None = field(default=None, compare=False)
    look_back: truncation.TruncationLaw | None = field(default=None, compare=False)
    optimizer: Callable[[Any], optax.GradientTransformation] = field(
        default=optax.adam, compare=False
    )

    def build(self, cell: Any, loss_fn: Any, **options: Any) -> GradientEstimator:
        """Builds it. Options: `normalizer` and, for segments, `policy` and `block_size`."""
        return self.make(cell, loss_fn, **options)


def named(entry: Callable[..., Arm]) -> Callable[..., Arm]:
    """Wraps a function that returns an arm: the arm then has its name, arguments and text."""
    signature = inspect.signature(entry)

    @functools.wraps(entry)
    def make(*args: Any, **kwargs: Any) -> Arm:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        shown = []
        for i, (name, value) in enumerate(bound.arguments.items()):
            default = signature.parameters[name].default
            value = int(value) if isinstance(value, float) and value.is_integer() else value
            if value != default:
                by_position = i == 0 or default is inspect.Parameter.empty
                shown.append(repr(value) if by_position else f"{name}={value!r}")
        return replace(
            entry(*args, **kwargs),
            name=entry.__name__,
            arguments=dict(bound.arguments),
            text=entry.__name__ + f"({', '.join(shown)})" * bool(shown),
        )

    return make


def parse(text: str, own: Mapping[str, Callable[..., Arm]] | None = None) -> Arm:
    """Returns the arm that `text` describes: a call of an entry, with literal arguments.

    Args:
        text: such as "artbp(50, alpha=4)".
        own: entries that only one experiment has, each made by `named`.

    Raises:
        ConfigError: no such call, an unknown estimator or argument, or a value that it refuses.
    """
    table = ESTIMATORS | dict(own or {})
    try:
        call = ast.parse(text.strip(), mode="eval").body
        call = ast.Call(call, [], []) if isinstance(call, ast.Name) else call  # "bptt"
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        name = call.func.id
        args = [ast.literal_eval(node) for node in call.args]
        kwargs = {str(node.arg): ast.literal_eval(node.value) for node in call.keywords}
    except (ValueError, SyntaxError):
        raise ConfigError(
            f"The arm {text!r} cannot be read: expected an estimator with literal arguments, such "
            "as 'artbp(50, alpha=4)' or 'tbptt(50)'."
        ) from None
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"The arm {text!r} names {name!r}, which is unknown.{hint} There are: "
            f"{', '.join(table)}."
        )
    try:
        return table[name](*args, **kwargs)
    except (TypeError, ValueError) as error:
        arguments = ", ".join(
            f"{key}" if p.default is p.empty else f"{key}={p.default!r}"
            for key, p in inspect.signature(table[name]).parameters.items()
        )
        reason = str(error).rstrip(".")
        raise ConfigError(
            f"The arm {text!r} is refused: {reason}. The arguments are {name}({arguments})."
        ) from error


def matched_horizon(mean_length: float, alpha: float = 4.0) -> int:
    """Returns the mean length of the segment that a random step is in, E[L²]/E[L].

    For the polynomial law, 1 + 2 (L0 − 1)(α − 2)/(α − 3), rounded; α > 3.
    """
    return round(1 + 2 * (mean_length - 1) * (alpha - 2) / (alpha - 3))


def kilobytes(estimator: GradientEstimator, params: Any, carry: Any, stream: Any) -> float:
    """Returns the memory of one estimate: the compiler's temporaries, and the estimator's state."""
    state = jax.eval_shape(lambda: estimator.init(params, carry, rng_key=jax.random.key(0)))
    step = jax.jit(estimator.estimate, donate_argnums=1)
    analysis = step.lower(params, state, stream).compile().memory_analysis()
    assert analysis is not None, "this backend does not say what a program needs"
    of_state = sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )
    return (analysis.temp_size_in_bytes + of_state) / 1000


ESTIMATORS: dict[str, Callable[..., Arm]] = {}


def _estimator(entry: Callable[..., Arm]) -> Callable[..., Arm]:
    ESTIMATORS[entry.__name__] = named(entry)
    return ESTIMATORS[entry.__name__]


def _arm(
    claims: str,
    length: Any,
    *,
    evaluations: float | Callable[[Size], float] = 1 + _BACKWARD,
    chain: float = _BACKWARD,
    law: truncation.TruncationLaw | None = None,
    **given: Any,
) -> Arm:
    """Makes an arm that the registry builds from its length, where `make` is not given.

    By default it has the cost of segments that do not overlap. Without a law, `length` is the
    number of steps between updates.
    """
    if law is None:
        truncation.fixed(length)  # refuses what is no number of steps
    defaults: dict[str, Any] = {
        "claims": REGISTRY[claims],
        "make": functools.partial(REGISTRY[claims].build, mean_length=length),
        "evaluations": evaluations if callable(evaluations) else lambda size: evaluations,
    }
    return Arm(length=length, chain=chain, law=law, **(defaults | given))


def _start_words(segment_start: SegmentStart) -> str:
    if segment_start not in get_args(SegmentStart):
        raise ValueError(f"segment_start={segment_start!r}, expected 'carried' or 'initial'")
    return ", from zero" if segment_start == "initial" else ""


@_estimator
def bptt(length: int | None = None) -> Arm:
    """Full BPTT: one update per stream or, with `length`, one per sequence of a stream that is
    reset every `length` steps."""
    if length is not None:
        return replace(tbptt(length), label="full BPTT", color=_BLACK, claims=REGISTRY["bptt"])
    return _arm("bptt", None, label="full BPTT", color=_BLACK, law=truncation.never())


@_estimator
def tbptt(length: int, draw_offset: bool = False, segment_start: SegmentStart = "carried") -> Arm:
    """Truncated BPTT with segments of `length` steps."""
    claims = "tbptt_drawn_offset" if draw_offset else "tbptt"
    offset = ", offset drawn" if draw_offset else ""
    return _arm(
        claims,
        length,
        make=functools.partial(
            REGISTRY[claims].build, mean_length=length, segment_start=segment_start
        ),
        label=f"TBPTT {length}{offset}{_start_words(segment_start)}",
        color=_VERMILLION,
        law=truncation.fixed(length),
    )


@_estimator
def tbptt_1_rmsprop() -> Arm:
    """TBPTT of one step, the cheapest baseline, with RMSprop.

    "Temporal Credit Is Free" (arXiv 2603.28750) says that it matches full RTRL.
    """
    return replace(tbptt(1), label="TBPTT 1, RMSprop", color=_ORANGE, optimizer=optax.rmsprop)


@_estimator
def tbptt_k1_k2(k1: int, k2: int, mode: Mode = "stored", losses: Losses = "new") -> Arm:
    """Truncated BPTT with an update every `k1` steps, through the last `k2` steps."""
    make: Callable[..., GradientEstimator] = functools.partial(
        estimators.tbptt_k1_k2, k1=k1, k2=k2, mode=mode, losses=losses
    )
    make(None, None)  # refuses bad options
    words = f", {_MODE_WORDS[mode]}" if k2 > k1 else ""
    claims = f"tbptt_{mode}"
    if losses == "window":
        claims = "tbptt_window_losses"
        words = f"{words.removesuffix(', stored')}, all losses of the window"
    elif k2 < k1:
        claims = "tbptt_short_window"
    forward = max(1.0, k2 / k1) if mode == "reforward" else 1.0
    cost = forward + _BACKWARD * k2 / k1
    return _arm(
        claims,
        k1,
        make=make,
        label=f"TBPTT({k1}, {k2}){words}",
        color=_VERMILLION,
        evaluations=cost,
        chain=cost,
    )


@_estimator
def adaptive_tbptt(length: int) -> Arm:
    """Truncated BPTT whose length adapts, `length` at first. Its cost is that of the first length.

    Every fourth estimate is measured, 4 lengths back.
    """
    truncation.fixed(length)  # refuses what is no number of steps
    cost = 1 + 2 * _BACKWARD + _BACKWARD * (4 * length + 1) / (4 * length)
    words = "TBPTT, length adapted"
    return _arm(
        "adaptive_tbptt", length, label=words, color=_VERMILLION, evaluations=cost, chain=cost
    )


@_estimator
def awd_lstm_bptt(length: int) -> Arm:
    """Truncated BPTT with lengths drawn around `length`, as AWD-LSTM draws them."""
    return _arm("awd_lstm_bptt", length, label="lengths of AWD-LSTM", color=_VERMILLION)


@_estimator
def artbp(
    length: float,
    alpha: float | None = None,
    law: str | None = None,
    segment_start: SegmentStart = "carried",
) -> Arm:
    """ARTBP with mean length `length`: the polynomial law with `alpha`, or `law="geometric"`."""
    if alpha is not None and law is None:
        lengths, words = truncation.polynomial(length, alpha), f"α = {alpha:g}"
    elif alpha is None and law == "geometric":
        lengths, words = truncation.geometric(length), law
    else:
        raise ValueError(
            f"alpha={alpha!r} and law={law!r} were given: expected alpha, for the polynomial law, "
            "or law='geometric'"
        )
    arm = _arm(
        "artbp_geometric" if law else "artbp_polynomial_4",
        length,
        make=functools.partial(estimators.artbp, law=lengths, segment_start=segment_start),
        label=f"ARTBP {length:g}, {words}{_start_words(segment_start)}",
        color=_SKY if law else _BLUE,
        law=lengths,
    )
    if segment_start == "initial":  # the gradient of no loss, see `artbp.artbp`
        return replace(arm, claims=arm.claims._replace(bias="truncation"))
    return arm


@_estimator
def uncompensated(
    length: float,
    alpha: float | None = None,
    law: str | None = None,
    segment_start: SegmentStart = "carried",
) -> Arm:
    """The random boundaries of ARTBP without the compensation: a control."""
    arm = artbp(length, alpha, law, segment_start)
    return replace(
        arm,
        make=functools.partial(arm.make, compensate=False),
        claims=REGISTRY["uncompensated_polynomial_4"],
        label=arm.label.replace("ARTBP", "No compensation"),
        color=_ORANGE,
    )


@_estimator
def unbiased_tbptt(
    length: int,
    hazard: float | None = None,
    windows: float | None = None,
    alpha: float | None = None,
    mode: LookBackMode = "stored",
) -> Arm:
    """Truncated BPTT with windows of `length` steps and look-backs of random length.

    A look-back ends at each edge with probability `hazard`; or it has `windows` windows on average,
    by the polynomial law with `alpha`.
    """
    if hazard is not None and windows is None and alpha is None:
        if not 0 < hazard < 1:
            raise ValueError(f"hazard={hazard!r}, expected a number between 0 and 1")
        law, words = truncation.geometric(1 / hazard), f"c = {hazard:g}"
    elif hazard is None and windows is not None and alpha is not None:
        law, words = truncation.polynomial(windows, alpha), f"{windows:g} windows, α = {alpha:g}"
    else:
        raise ValueError(
            f"hazard={hazard!r}, windows={windows!r} and alpha={alpha!r} were given: expected "
            "hazard, or windows and alpha"
        )
    again = ", run again" if mode == "reforward" else ""
    extra = truncation.look_back_work(law)
    forward = 1 + extra if again else 1.0
    make: Callable[..., GradientEstimator] = functools.partial(
        estimators.unbiased_tbptt, law=law, truncation_length=length, mode=mode
    )
    make(None, None)  # refuses bad options
    return _arm(
        "unbiased_tbptt",
        length,
        make=make,
        label=f"unbiased TBPTT {length}, {words}{again}",
        color=_PINK,
        evaluations=forward + _BACKWARD * (1 + extra),
        chain=forward + 1 + extra,
        look_back=law,
    )


@_estimator
def random_truncation(length: float) -> Arm:
    """BPTT in which the gradient goes on with probability 1 − 1/`length`, and is scaled up."""
    words = f"random truncation, π = 1 − 1/{length:g}"
    law = truncation.geometric(length)
    return _arm("random_truncation", length, label=words, color=_SKY, law=law)


@_estimator
def rtrl(length: int) -> Arm:
    """Real-time recurrent learning with an update every `length` steps.

    Each step is run, its loss is differentiated, and the influence of each parameter is updated.
    """

    def cost(size: Size) -> float:
        backward = size.num_states if size.num_states < size.num_params else 0
        return 2 + size.num_params + backward

    return _arm("rtrl", length, label="RTRL", color=_GREEN, evaluations=cost)


@_estimator
def snap1(length: int) -> Arm:
    """RTRL that keeps only the influences which arise within one step."""
    return _arm(
        "snap1",
        length,
        label="SnAp-1",
        color=_GREEN,
        evaluations=lambda size: 2 + size.num_params + size.num_states,
    )


@_estimator
def uoro(length: int) -> Arm:
    """UORO, RTRL with an unbiased rank-one influence; an update every `length` steps."""
    return _arm("uoro", length, label="UORO", color=_GREEN, evaluations=4)


@_estimator
def forward_gradient(length: int, num_directions: int = 1) -> Arm:
    """The derivative along random directions, carried forward; an update every `length` steps."""
    make: Callable[..., GradientEstimator] = functools.partial(
        estimators.forward_gradient, update_every=length, num_directions=num_directions
    )
    make(None, None)  # refuses bad options
    return _arm(
        "forward_gradient",
        length,
        make=make,
        label=f"forward gradient, {_count(num_directions, 'direction')}",
        color=_GREEN,
        evaluations=2 + num_directions,
    )


@_estimator
def truncated_es(length: int, num_pairs: int = 8, scale: float = 0.01) -> Arm:
    """Evolution strategies on unrolls of `length` steps, each with new perturbations."""
    return _strategy("truncated_es", f"ES {length}", length, num_pairs, scale)


@_estimator
def pes(length: int, num_pairs: int = 8, scale: float = 0.01) -> Arm:
    """Persistent evolution strategies on unrolls of `length` steps."""
    return _strategy("pes", f"PES {length}", length, num_pairs, scale)


@_estimator
def gpes(length: int, draw_every: int, num_pairs: int = 8, scale: float = 0.01) -> Arm:
    """PES with new perturbations every `draw_every` steps, on unrolls of `length` steps."""
    words = f"GPES {draw_every}, unrolls of {length}"
    return _strategy("gpes", words, length, num_pairs, scale, draw_every=draw_every)


@_estimator
def nres(length: int, num_pairs: int = 8, scale: float = 0.01) -> Arm:
    """PES with one perturbation for a whole sequence, on unrolls of `length` steps."""
    return _strategy("nres", f"NRES {length}", length, num_pairs, scale)


def _strategy(
    name: str, words: str, length: int, num_pairs: int, scale: float, **options: Any
) -> Arm:
    """Every particle and the unperturbed system run forward; no derivative is taken."""
    make = functools.partial(
        getattr(estimators, name),
        truncation_length=length,
        num_pairs=num_pairs,
        scale=scale,
        **options,
    )
    make(None, None)  # refuses bad options
    return _arm(
        name,
        length,
        make=make,
        label=f"{words}, {_count(num_pairs, 'pair')}",
        color=_PINK,
        evaluations=2 * num_pairs + 1,
        chain=1,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)
