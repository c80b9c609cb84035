"""The four tasks, each with the score of its table, the score of a guess and the best one.

All sequences have 64 steps, but passages of text 256; its longest dependencies are about 20
characters. The tasks with symbols share an alphabet, most of which some of them never use, so that
one compiled program trains on all of them.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.common.report import median_and_range
from experiments.ptb import generated
from experiments.ptb.data import Corpus, batch_rows, penn_treebank
from experiments.tasks import losses
from experiments.tasks.adding import adding
from experiments.tasks.base import Task
from experiments.tasks.copy_memory import copy_memory
from experiments.tasks.digits import digits, images

LENGTH = 64  # steps of a sequence
PASSAGE = (
    4 * LENGTH
)  # characters of text that are read from the zero state, in training as in tests
NUM_RECALLED = 2
NUM_SYMBOLS = 32  # of the alphabet: inputs and classes of all tasks with symbols
TEST_SEED = 10**6  # data of no training


class Problem(NamedTuple):
    """One task.

    Attributes:
        unit: of the score, for tables.
        stream: `stream(seed, num_steps, rows) -> artbp.Stream`, to train on.
        test: `test(rows) -> artbp.Stream`, read from the zero state.
        score: `score(outputs, stream) -> scalar`, from the outputs of the readout, `[T, B, ...]`.
        chance: the score of the best guess without memory.
        best: the score that no model exceeds.
        symbols: whether inputs are integers.
    """

    label: str
    unit: str
    input_size: int
    output_size: int
    loss_fn: Callable[[Any, jax.Array, jax.Array], jax.Array]
    stream: Callable[[int, int, int], artbp.Stream]
    test: Callable[[int], artbp.Stream]
    score: Callable[[jax.Array, artbp.Stream], jax.Array]
    chance: float
    best: float
    symbols: bool = True

    @property
    def worst(self) -> float:
        """The score of a run that diverged: −∞ where larger scores are better, else ∞."""
        return -math.inf if self.best > self.chance else math.inf

    def words(self, scores: Sequence[float]) -> str:
        """Formats median, smallest and largest of the scores of all runs."""
        return median_and_range(scores, worst=self.worst)


def _of_task(task: Task, **given: Any) -> Problem:
    """A task of `experiments.tasks` as a problem, whose test is one sequence in each row."""

    def stream(seed: int, num_steps: int, rows: int) -> artbp.Stream:
        return next(task.chunks(seed, rows, num_steps)).stream

    defaults: dict[str, Any] = {
        "stream": stream,
        "test": lambda rows: stream(TEST_SEED, LENGTH, rows),
    }
    return Problem(
        input_size=NUM_SYMBOLS if task.symbols else task.input_size,
        output_size=NUM_SYMBOLS if task.symbols else task.output_size,
        loss_fn=losses.loss_fn(task),
        symbols=task.symbols,
        **(defaults | given),
    )


def _right(last: int) -> Callable[[jax.Array, artbp.Stream], jax.Array]:
    """Scores by the share of right answers at the last steps of the sequences, in %."""

    def score(outputs: jax.Array, stream: artbp.Stream) -> jax.Array:
        is_right = jnp.argmax(outputs, axis=-1) == stream.targets
        return 100 * jnp.mean(is_right[-last:])

    return score


def _copy(text: str) -> Problem:
    """The loss counts where symbols are recalled: most blanks are learned without memory."""
    task = copy_memory(LENGTH - 2 * NUM_RECALLED, NUM_RECALLED)

    def stream(seed: int, num_steps: int, rows: int) -> artbp.Stream:
        every = next(task.chunks(seed, rows, num_steps)).stream
        is_recall = np.arange(num_steps) % LENGTH >= LENGTH - NUM_RECALLED
        mask = np.broadcast_to(is_recall[:, None], every.xs.shape)
        return dataclasses.replace(every, mask=mask)

    return _of_task(
        task,
        stream=stream,
        test=lambda rows: stream(TEST_SEED, LENGTH, rows),
        label="copy memory",
        unit="symbols recalled, %",
        score=_right(NUM_RECALLED),
        chance=100 / 8,
        best=100.0,
    )


def _adding(text: str) -> Problem:
    def score(outputs: jax.Array, stream: artbp.Stream) -> jax.Array:
        return jnp.mean(jnp.square(outputs[-1] - stream.targets[-1]))

    return _of_task(
        adding(LENGTH),
        label="adding problem",
        unit="squared error",
        score=score,
        chance=1 / 6,
        best=0.0,
    )


def _digits(text: str) -> Problem:
    def test(rows: int) -> artbp.Stream:
        """Every test image once, whatever the number of rows."""
        xs, labels = images("test")
        is_last = np.arange(LENGTH)[:, None] == LENGTH - 1
        mask = np.broadcast_to(is_last, xs.shape)
        return artbp.Stream(xs, np.broadcast_to(labels, xs.shape), mask=mask)

    commonest = np.bincount(images("train")[1]).argmax()
    return _of_task(
        digits(),
        label="digits by pixels",
        unit="right answers, %",
        test=test,
        score=_right(1),
        chance=100 * float(np.mean(images("test")[1] == commonest)),
        best=100.0,
    )


def _characters(text: str) -> Problem:
    """Text; chance is the entropy of a character given the one before, of the text itself."""
    is_generated = text == "generated"
    corpus = generated.generated_corpus(0, 20_000) if is_generated else penn_treebank()

    def rows_of(symbols: np.ndarray, num_steps: int, rows: int, seed: int | None) -> artbp.Stream:
        xs, targets, _ = batch_rows(symbols, rows)
        first = 0 if seed is None else np.random.default_rng(seed).integers(len(xs))
        steps = (first + np.arange(num_steps)) % len(xs)
        resets = (np.arange(num_steps) % PASSAGE == 0)[:, None] & np.ones(rows, bool)
        mask = np.ones((num_steps, rows), bool)
        return artbp.Stream(xs[steps], targets[steps], resets=resets, mask=mask)

    def test(rows: int) -> artbp.Stream:
        """At most `rows` passages, none of which overlap."""
        return rows_of(corpus.test, PASSAGE, min(rows, len(corpus.test) // (PASSAGE + 1)), None)

    def score(outputs: jax.Array, stream: artbp.Stream) -> jax.Array:
        log_shares = jax.nn.log_softmax(outputs)
        chosen = jnp.take_along_axis(log_shares, stream.targets[..., None], axis=-1)
        return -jnp.mean(chosen) / math.log(2)

    num_symbols = max(NUM_SYMBOLS, len(corpus.vocabulary))
    return Problem(
        label="text" if is_generated else "Penn Treebank",
        unit="bits per character",
        input_size=num_symbols,
        output_size=num_symbols,
        loss_fn=losses.cross_entropy,
        stream=lambda seed, num_steps, rows: rows_of(corpus.train, num_steps, rows, seed),
        test=test,
        score=score,
        chance=bigram_entropy(corpus),
        best=generated.bits_per_character() if is_generated else float("nan"),
    )


def bigram_entropy(corpus: Corpus) -> float:
    """The entropy of a character of the test text given the one before, in bits."""
    counts = np.zeros([len(corpus.vocabulary)] * 2)
    np.add.at(counts, (corpus.test[:-1], corpus.test[1:]), 1)
    shares = counts / counts.sum()
    given = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-300)
    return float(-np.sum(shares * np.log2(np.where(given > 0, given, 1))))


PROBLEMS = {"copy": _copy, "adding": _adding, "digits": _digits, "characters": _characters}
