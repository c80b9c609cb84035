"""The methods under comparison, named by short strings so that a config can list them.

Their forms:

    tbptt-K                          truncated backpropagation, one segment every K steps
    artbp-L0-alpha-A                 random boundaries (polynomial law, mean length L0), compensated
    artbp-L0-geometric               the same with the geometric law
    uncompensated-L0-alpha-A         the same boundaries as artbp-L0-alpha-A, no compensation
    uncompensated-L0-geometric
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import artbp
from experiments.influence_balancing import system

_PATTERN = re.compile(
    r"(?:tbptt-(?P<window>\d+))"
    r"|(?:(?P<family>artbp|uncompensated)-(?P<mean>[\d.]+)-(?:alpha-(?P<alpha>[\d.]+)|geometric))"
)


@dataclass(frozen=True)
class Method:
    """One way to truncate.

    Attributes:
        name: the string it was parsed from.
        label: what a figure calls it.
        law: its truncation law.
        compensate: whether the cotangent that survives a possible boundary is scaled up.
        is_random: False where the boundaries are fixed: then all keys give the same run.
        unroll_length: the (mean) number of steps between updates.
        estimator: makes the gradient estimator for this system; options are passed on.
    """

    name: str
    label: str
    law: artbp.truncation.TruncationLaw
    compensate: bool
    is_random: bool
    unroll_length: float
    estimator: Callable[..., artbp.GradientEstimator]

    def survival(self, num_ages: int) -> np.ndarray:
        """P(length >= k) for k = 1 … num_ages, float64: how often a step has age k."""
        reached = np.asarray(self.law.survival(np.arange(1, num_ages)), np.float64)
        return np.concatenate([[1.0], reached])


def parse(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: the name has none of the forms above.
    """
    match = _PATTERN.fullmatch(name)
    if match is None:
        raise ValueError(
            f"unknown method {name!r}; expected tbptt-K, artbp-L0-alpha-A, artbp-L0-geometric, "
            "uncompensated-L0-alpha-A or uncompensated-L0-geometric, e.g. 'artbp-16-alpha-4'"
        )
    if match["window"] is not None:
        return _tbptt(name, int(match["window"]))
    return _random(name, match["family"], float(match["mean"]), match["alpha"])


def _tbptt(name: str, window: int) -> Method:
    def estimator(**options) -> artbp.GradientEstimator:
        return artbp.tbptt(system.cell, system.loss_fn, truncation_length=window, **options)

    law = artbp.truncation.fixed(window)
    return Method(name, f"TBPTT {window}", law, False, False, window, estimator)


def _random(name: str, family: str, mean: float, alpha: str | None) -> Method:
    compensate = family == "artbp"
    if alpha is None:
        law, detail = artbp.truncation.geometric(mean), "geometric"
    else:
        law, detail = artbp.truncation.polynomial(mean, float(alpha)), f"α = {alpha}"

    def estimator(**options) -> artbp.GradientEstimator:
        return artbp.artbp(system.cell, system.loss_fn, law, compensate=compensate, **options)

    title = f"ARTBP {mean:g}, {detail}" if compensate else f"No compensation {mean:g}, {detail}"
    return Method(name, title, law, compensate, True, mean, estimator)
