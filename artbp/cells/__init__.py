"""Reference cells: plain functions `cell(params, carry, x) -> (carry, y)` that can also `init`."""

from artbp.cells.base import ReferenceCell
from artbp.cells.gru import gru
from artbp.cells.lstm import LSTMCarry, lstm
from artbp.cells.vanilla import linear, rnn

__all__ = [
    "LSTMCarry",
    "ReferenceCell",
    "gru",
    "linear",
    "lstm",
    "rnn",
]
