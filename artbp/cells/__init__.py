"""Reference cells: plain functions `cell(params, carry, x) -> (carry, y)` that can also `init`."""

from artbp.cells.base import ReferenceCell
from artbp.cells.diagonal import DiagonalCell, DiagonalStack, diagonal_cell, diagonal_stack
from artbp.cells.elementwise_lstm import elementwise_lstm
from artbp.cells.gru import gru
from artbp.cells.lru import LRUCarry, lru
from artbp.cells.lstm import LSTMCarry, lstm
from artbp.cells.sab import SABCarry, sab
from artbp.cells.vanilla import linear, rnn

__all__ = [
    "DiagonalCell",
    "DiagonalStack",
    "LRUCarry",
    "LSTMCarry",
    "ReferenceCell",
    "SABCarry",
    "diagonal_cell",
    "diagonal_stack",
    "elementwise_lstm",
    "gru",
    "linear",
    "lru",
    "lstm",
    "rnn",
    "sab",
]
