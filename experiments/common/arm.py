"""What an arm is: an estimator with its arguments, and how it is read from text.

The table of estimators, and how to use an arm, are in `experiments.common.arms`.
"""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax

from artbp import EstimatorSpec, GradientEstimator, truncation
from experiments.common.errors import ConfigError


class Size(NamedTuple):
    """The numbers in the params, and in a carry with all its rows."""

    num_params: int
    num_states: int


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An estimator as an experiment compares it. Two arms are equal when their texts are.

    Attributes:
        text: the arm as `parse` reads it, in one standard form.
        name: its entry in the table.
        arguments: the arguments of that entry by name, defaults included.
        make: `make(cell, loss_fn, **options) -> GradientEstimator`.
        claims: the entry of `artbp.REGISTRY` whose claims hold for it: bias, randomness.
        label: for tables and figures.
        color: of its family; a figure with several arms of a family uses `figures.colors`.
        length: time steps between updates, on average; None for one update per stream.
        evaluations: `evaluations(size) -> number` of the cell per time step.
        chain: how many of these, per time step, wait for one another.
        law: the law of the segment lengths; None where gradients do not come in segments.
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

    def build(self, cell: Any, loss_fn: Any, **options: Any) -> GradientEstimator:
        """The estimator. Options: `normalizer` and, for segments, `policy` and `block_size`."""
        return self.make(cell, loss_fn, **options)


def named(entry: Callable[..., Arm]) -> Callable[..., Arm]:
    """Wraps a function that returns an arm: the arm then has its name, arguments and text."""
    signature = inspect.signature(entry)

    @functools.wraps(entry)
    def make(*args: Any, **kwargs: Any) -> Arm:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        shown = []
        for i, (name, parameter) in enumerate(signature.parameters.items()):
            value = bound.arguments[name]
            value = int(value) if isinstance(value, float) and value.is_integer() else value
            if value != parameter.default:
                by_position = i == 0 or parameter.default is parameter.empty
                shown.append(repr(value) if by_position else f"{name}={value!r}")
        return replace(
            entry(*args, **kwargs),
            name=entry.__name__,
            arguments=dict(bound.arguments),
            text=entry.__name__ + f"({', '.join(shown)})" * bool(shown),
        )

    return make


def parse(text: str, table: Mapping[str, Callable[..., Arm]]) -> Arm:
    """The arm that `text` describes: a call of an entry of `table`, with literal arguments.

    Raises:
        ConfigError: no such call, an unknown estimator or argument, or a value that it refuses.
    """
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


def kilobytes(estimator: GradientEstimator, params: Any, carry: Any, stream: Any) -> float:
    """Memory of one estimate by the compiler's account: temporaries, and the estimator's state."""
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
