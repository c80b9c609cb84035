"""A live monitor: the bias and the noise of truncated gradients during a training."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from artbp import _tree
from artbp._checks import check_integer, check_positive
from artbp.diagnostics.gate_gradients import (
    check_truncation_lengths,
    gradients_of_gates,
    tbptt_gates,
)
from artbp.diagnostics.real_coordinates import inner_product
from artbp.estimators.base import EstimatorState
from artbp.estimators.stepwise import Steps
from artbp.stream import Stream
from artbp.truncation.base import TruncationLaw, check_law
from artbp.unrolls.checks import Cell, check_stream
from artbp.unrolls.readout import LossFn, masked

Measure = Callable[[Any, EstimatorState, Stream, jax.Array], dict[str, jax.Array]]


def shadow(
    cell: Cell,
    loss_fn: LossFn,
    *,
    window_length: int,
    truncation_lengths: Sequence[int] = (),
    law: TruncationLaw | None = None,
    num_draws: int = 8,
    history_length: int = 0,
    num_rows: int | None = None,
) -> Measure:
    """Makes a pure function `measure(params, state, stream, rng_key) -> metrics`; jit it.

    Call it every so many updates with the live params, state and stream, and log the result. It
    reads the next window of W steps and changes nothing: the training goes on as without it, bit
    for bit. With g the gradient of the window's summed losses through all W steps, it returns::

        gradient_norm      ‖g‖
        bias_K             ‖ĝ(K) − g‖ / ‖g‖, cuts every K steps from the window's start
        projection_K       ⟨ĝ(K) − g, g⟩ / ‖g‖²; below −1 the sign is wrong
        artbp_noise        √(mean ‖ĝ − g‖²) / ‖g‖ over draws of the law's boundaries
        carry_error        ‖g − g'‖ / ‖g'‖

    `carry_error` is the effect of a carry that older params computed: g' starts from a carry that
    the present params compute over the `history_length` steps before the window. At the end of the
    stream the window has fewer steps, also where the sequence goes on in the next stream of
    `artbp.stream_chunks`. Average over calls; `gradient_report` gives intervals.

    Cost: one forward and 1 + (truncation lengths) + num_draws backward passes over the window. A
    history adds a forward pass over it, and a forward and a backward pass over the window. Memory:
    the residuals of the window, and one gradient per backward pass.

    Args:
      cell, loss_fn: as for `artbp.artbp`.
      window_length: W ≥ 2. Choose several times the memory of the model.
      truncation_lengths: K's of TBPTT, each below W.
      law: of ARTBP; None omits its noise.
      num_draws: draws of boundaries, on one forward pass.
      history_length: steps over which the carry is recomputed, from the first carry of a pass; 0
        omits `carry_error`. Choose several times the memory of the model. Other lengths than 0 need
        the whole sequence in one stream.
      num_rows: use the first rows of the batch only, to save time. Every array of xs and targets
        must then be `[T, B, ...]`, and every leaf of the carry `[B, ...]`.

    Raises:
      TypeError, ValueError: bad options; from `measure`: as `artbp.unroll`, and a history_length
        above 0 with a stream of `artbp.stream_chunks`.
    """
    check_positive(integer=True, window_length=window_length, num_draws=num_draws)
    if num_rows is not None:
        check_positive(integer=True, num_rows=num_rows)
    check_integer(0, history_length=history_length)
    check_truncation_lengths(truncation_lengths, window_length)
    if law is not None:
        check_law(law)

    def measure(
        params: Any, state: EstimatorState, stream: Stream, rng_key: jax.Array
    ) -> dict[str, jax.Array]:
        check_stream(stream)
        if history_length:
            _check_whole(stream, history_length)
        carries = state.carry, state.first_carry, state.initial_carry
        carry, first_carry, initial_carry = _first_rows(carries, num_rows, axis=0)
        position = jnp.asarray(state.position)
        first = position + np.int32(stream.history)
        window = _window(stream, first, window_length, num_rows)
        gates = jnp.asarray(tbptt_gates(truncation_lengths, window_length))
        if law is not None:
            keys = jax.random.split(rng_key, num_draws)
            drawn = jax.vmap(lambda key: law.sample_gates(key, window_length))(keys)
            gates = jnp.concatenate([gates, drawn.astype(gates.dtype)])

        options = {"initial_carry": initial_carry}
        found = gradients_of_gates(cell, loss_fn, params, carry, window, gates, **options)
        whole = jax.tree.map(lambda leaf: leaf[0], found)
        norm = optax.tree.norm(whole)
        errors = jax.tree.map(lambda leaf, one: leaf - one[None], found, whole)
        norms = jax.vmap(optax.tree.norm)(errors) / norm
        along = jax.vmap(lambda error: inner_product(error, whole))(errors) / norm**2
        metrics = {"gradient_norm": norm}
        for i, length in enumerate(truncation_lengths, start=1):
            metrics |= {f"bias_{length}": norms[i], f"projection_{length}": along[i]}
        if law is not None:
            metrics["artbp_noise"] = jnp.sqrt(jnp.mean(norms[-num_draws:] ** 2))
        if history_length:
            history = _window(stream, position - np.int32(history_length), history_length, num_rows)
            # Of a leaf that the end of a pass leaves as it is, the present value.
            first_carry = _tree.combine(first_carry, carry)
            fresh = _recomputed_carry(cell, params, first_carry, initial_carry, history, position)
            data = fresh, window
            found = gradients_of_gates(cell, loss_fn, params, *data, gates[:1], **options)
            fresh = jax.tree.map(lambda leaf: leaf[0], found)
            difference = jax.tree.map(jnp.subtract, whole, fresh)
            metrics["carry_error"] = optax.tree.norm(difference) / optax.tree.norm(fresh)
        return metrics

    return measure


def _check_whole(stream: Stream, history_length: int) -> None:
    """Raises ValueError if the sequence may have begun before the stream."""
    if not stream.ends or stream.history or stream.stop is not None:
        raise ValueError(
            f"{history_length=} with a stream that may begin within a sequence (history="
            f"{stream.history}, ends={stream.ends}, stop {'not ' * (stream.stop is None)}given); "
            "expected the whole sequence in one stream, because the carry is computed again from "
            "older steps. With the streams of artbp.stream_chunks, pass history_length=0."
        )


def _recomputed_carry(
    cell: Cell,
    params: Any,
    first_carry: Any,
    initial_carry: Any,
    history: Stream,
    position: jax.Array,
) -> Any:
    """Computes the carry that enters step `position` from the steps before it."""
    start = position - np.int32(history.num_steps)
    steps = Steps(cell, lambda params, y, target: y, history, initial_carry)

    def step(i: jax.Array, carry: Any) -> Any:
        carry = _tree.select(start + i == 0, first_carry, carry)
        return steps.run(params, carry, i)[0]

    carry = lax.fori_loop(0, history.num_steps, step, first_carry)
    return _tree.select(position == 0, first_carry, carry)


def _window(stream: Stream, start: jax.Array, length: int, num_rows: int | None) -> Stream:
    """Takes steps start, …, start + length − 1 of the arrays.

    Losses of steps before the arrays or beyond the steps to run are masked.
    """
    steps = start + jnp.arange(length, dtype=jnp.int32)
    end = jnp.asarray(stream.history + stream.num_new, jnp.int32)
    exists = (steps >= 0) & (steps < end)
    index = jnp.clip(steps, 0, end - 1)
    fields = (stream.xs, stream.targets, stream.resets, stream.mask)
    fields = _tree.as_arrays(_first_rows(fields, num_rows, axis=1))
    xs, targets, resets, mask = _tree.gather(fields, index)
    mask = exists if mask is None else masked(mask, exists)
    return Stream(xs, targets, resets, mask, num_steps=length)


def _first_rows(tree: Any, num_rows: int | None, *, axis: int) -> Any:
    """Takes the first rows, or all for None, of the leaves that have this axis."""
    rows = (slice(None),) * axis + (slice(num_rows),)
    return jax.tree.map(lambda leaf: leaf[rows] if np.ndim(leaf) > axis else leaf, tree)
