"""Truncation laws: the distribution of segment lengths, and the compensation that goes with it.

polynomial  c(k) = (α − 1)/((α − 2)·L0 + k), the paper's law
geometric   c(k) = 1/L0
fixed       a boundary at every multiple of K: truncated BPTT
never       no boundary: full BPTT
tabulated   c(k) from a table
replay      a chosen pattern of boundaries

`streaming_variance` is the variance that a law adds to the gradient, given how gradients shrink
with lag; `artbp.contrib.optimal_law` minimises it. For the look-backs of `artbp.unbiased_tbptt`,
`look_back_variance` and `look_back_work` say what a law costs, and `optimal_look_back` finds the
best one.
"""

from artbp.truncation.base import InvertibleLaw, TruncationLaw
from artbp.truncation.deterministic import Fixed, Never, fixed, never
from artbp.truncation.geometric import Geometric, geometric
from artbp.truncation.look_back import look_back_variance, look_back_work, optimal_look_back
from artbp.truncation.polynomial import Polynomial, polynomial
from artbp.truncation.replay import Replay, replay
from artbp.truncation.streaming import streaming_variance
from artbp.truncation.tabulated import Tabulated, tabulated

__all__ = [
    "Fixed",
    "Geometric",
    "InvertibleLaw",
    "Never",
    "Polynomial",
    "Replay",
    "Tabulated",
    "TruncationLaw",
    "fixed",
    "geometric",
    "look_back_variance",
    "look_back_work",
    "never",
    "optimal_look_back",
    "polynomial",
    "replay",
    "streaming_variance",
    "tabulated",
]
