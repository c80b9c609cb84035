"""Defines a task: endless rows of sequences with a known reference loss, cut into chunks."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np

import artbp

# A sequence may be longer than what fits into memory: tasks make pieces of at most so many steps.
MAX_PIECE = 1024


class Chunk(NamedTuple):
    """Some steps of every row.

    `stream` holds NumPy arrays: xs int32 `[T, B]` (symbols) or float32 `[T, B, input_size]`;
    targets int32 `[T, B]` (classes) or float32 `[T, B, output_size]`, zero where they do not count;
    resets and mask bool `[T, B]`. `continues` is whether any row goes on with its sequence in the
    next chunk, so that the carry must be kept; otherwise all rows of the next chunk begin anew.
    """

    stream: artbp.Stream
    continues: bool


class Piece(NamedTuple):
    """Consecutive steps of one row within one sequence: arrays as in a chunk, without the rows.

    `begins` is whether the sequence begins at the first of these steps.
    """

    xs: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    begins: bool


Pieces = Callable[[np.random.Generator, np.random.Generator], Iterator[Piece]]
# (xs, targets, mask) at the given steps of a sequence; None stands for a mask that is all True.
At = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray | None]]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """A task for recurrent networks, with the losses that its solutions are compared with.

    Each task has a builder, which raises ValueError for arguments outside their range.

    Attributes:
      name: for tables and file names.
      input_size: the number of symbols, or of floats in an input.
      output_size: the number of classes, or of floats in a target.
      baselines: mean losses per counted step, in the limit of long streams, by name. No predictor
        has less than "optimum". The others are reached without memory, as the docstring of the
        task derives.
      pieces: `pieces(rng, shared)` is one endless row. `rng` belongs to the row; `shared` gives
        every row the same numbers, for what rows have in common.
      symbols: whether inputs and targets are integers, for cross-entropy; otherwise they are
        floats, for squared error.
      sequence_length: steps per sequence where all have the same number, otherwise None.
    """

    name: str
    input_size: int
    output_size: int
    baselines: Mapping[str, float]
    pieces: Pieces
    symbols: bool = True
    sequence_length: int | None = None

    @property
    def loss(self) -> Literal["cross entropy", "squared error"]:
        """Cross-entropy is in nats; squared error is summed over the outputs."""
        return "cross entropy" if self.symbols else "squared error"

    def chunks(self, seed: int, batch_size: int, chunk_length: int) -> Iterator[Chunk]:
        """Yields endless chunks of `chunk_length` steps of `batch_size` independent rows.

        Three chunks of 7 steps hold what one chunk of 21 steps holds, and row b is the same in
        every batch with more than b rows. Another seed gives other rows. To go on after chunk n in
        another process, skip n chunks with `itertools.islice`.

        Raises:
          ValueError: a negative seed, no rows, no steps, or anything but integers.
        """
        seed = check_integer("seed", seed, 0)
        chunk_length = check_integer("chunk_length", chunk_length, 1)
        rows = []
        for row in range(check_integer("batch_size", batch_size, 1)):
            own = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(row,)))
            shared = np.random.default_rng(np.random.SeedSequence(seed))
            rows.append(_row(self.pieces(own, shared), chunk_length))
        return map(_chunk, zip(*rows, strict=True))


def _chunk(rows: tuple[tuple[list[np.ndarray], bool], ...]) -> Chunk:
    arrays, begins = zip(*rows, strict=True)
    columns = zip(*arrays, strict=True)
    xs, targets, resets, mask = (np.stack(column, axis=1) for column in columns)
    stream = artbp.Stream(xs, targets, resets=resets, mask=mask)
    return Chunk(stream, continues=not all(begins))


def _row(pieces: Iterator[Piece], num_steps: int) -> Iterator[tuple[list[np.ndarray], bool]]:
    """Yields xs, targets, resets and mask of the next steps, and whether a sequence begins next."""
    piece, used = next(pieces), 0
    while True:
        parts, left = [], num_steps
        while left:
            cut = slice(used, min(used + left, len(piece.mask)))
            resets = (np.arange(cut.start, cut.stop) == 0) & piece.begins
            parts.append((piece.xs[cut], piece.targets[cut], resets, piece.mask[cut]))
            left, used = left - len(resets), cut.stop
            if used == len(piece.mask):
                piece, used = next(pieces), 0
        arrays = [np.concatenate(column) for column in zip(*parts, strict=True)]
        yield arrays, piece.begins and used == 0


def sequences(
    draw: Callable[[np.random.Generator], tuple[int, At]], *, endless: bool = False
) -> Pieces:
    """Makes rows of sequences, one after the other, which need no more memory than a piece.

    Args:
      draw: `draw(rng) -> (length, at)`, one sequence. `at(steps)` is called for consecutive parts
        of 0, ..., length − 1, and targets where its mask is False are set to zero.
      endless: whether the row is one sequence without an end, reset at its first step only.
    """

    def pieces(rng: np.random.Generator, shared: np.random.Generator) -> Iterator[Piece]:
        begins = True
        while True:
            length, at = draw(rng)
            for start in range(0, length, MAX_PIECE):
                steps = np.arange(start, min(start + MAX_PIECE, length))
                xs, targets, mask = at(steps)
                mask = np.ones(len(steps), bool) if mask is None else mask
                targets[~mask] = 0
                yield Piece(xs, targets, mask, begins)
                begins = False
            begins = not endless

    return pieces


def check_integer(name: str, value: object, minimum: int) -> int:
    """Returns `value` as a Python integer; ValueError unless it is one of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        raise ValueError(f"{name} = {value!r}; expected an integer, {minimum} or more.")
    return int(value)


def check_range(minimum: int, **limits: object) -> tuple[int, int]:
    """Returns both as Python integers; ValueError unless minimum ≤ the first ≤ the second."""
    low, high = (check_integer(name, value, minimum) for name, value in limits.items())
    if low > high:
        first, last = limits
        given = f"{first} = {low}, {last} = {high}"
        raise ValueError(f"{given}; expected {first} <= {last}. Swap them.")
    return low, high


def check_number(name: str, value: object, minimum: float, maximum: float, meaning: str) -> float:
    """Returns `value` as a float; ValueError unless it is a number from `minimum` to `maximum`."""
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not real or not minimum <= value <= maximum:
        expected = f"{meaning} from {minimum:g} to {maximum:g}"
        raise ValueError(f"{name} = {value!r}; expected {expected}.")
    return float(value)
