"""Bias and noise of truncated gradients during a training: measured beside it, out of its way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from artbp import _tree
from artbp.diagnostics.gate_gradients import gradients_of_gates
from artbp.estimators.base import EstimatorState
from artbp.stream import Stream
from artbp.truncation.base import TruncationLaw, check_law
from artbp.unrolls.checks import Cell, check_positive
from artbp.unrolls.readout import LossFn
from artbp.unrolls.unroll import unroll

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
    """Makes `measure(params, state, stream, rng_key) -> metrics`, a pure function to be jitted.

    Call it every so many updates with the live params, state and stream, and log what it returns.
    It reads the window of W steps that comes next and changes nothing: the training goes on bit for
    bit as without it. For the window, relative to the norm of its gradient g through all W steps::

        gradient_norm      ‖g‖, of the window's summed losses
        bias_K             ‖ĝ(K) − g‖ / ‖g‖, cuts every K steps from the window's start
        projection_K       ⟨ĝ(K) − g, g⟩ / ‖g‖²; below −1 the sign is wrong
        artbp_noise        √(mean ‖ĝ − g‖²) / ‖g‖ over draws of the law's boundaries
        carry_error        ‖g − g'‖ / ‖g'‖ with g' from the carry of the present params

    The carry of a running training comes from older params. `carry_error` is what that does to the
    gradient: g' starts from a carry that the present params have made of the steps before the
    window, from the initial carry on.

    These are of one window: average them over calls, and see `gradient_report` for intervals. At
    the end of the stream the window has fewer steps.

    Cost: a forward pass and 1 + (truncation lengths) + num_draws backward passes over W steps of
    `num_rows` rows, and with a history a forward pass over it, one more over the window, and one
    backward. Memory: the residuals of the window and as many gradients as there are patterns.

    Args:
      cell, loss_fn: as for `artbp.artbp`.
      window_length: W ≥ 2. Several times the memory of the model.
      truncation_lengths: K's, each below W.
      law: of ARTBP; None leaves its noise out.
      num_draws: draws of boundaries, on one forward pass.
      history_length: steps before the window that the carry is made from again; 0 leaves
        `carry_error` out. As many as the model takes to forget where it started.
      num_rows: the first rows of the batch only, for less time. Every array of xs and targets is
        then `[T, B, ...]`, and every leaf of the carry `[B, ...]`.

    Raises:
      TypeError, ValueError: bad options; from `measure`: as `artbp.unroll`.
    """
    check_positive(integer=True, window_length=window_length, num_draws=num_draws)
    if num_rows is not None:
        check_positive(integer=True, num_rows=num_rows)
    if isinstance(history_length, bool) or not history_length >= 0:
        raise ValueError(f"history_length={history_length!r}; expected an integer ≥ 0.")
    for length in truncation_lengths:
        if not 1 <= length < window_length:
            raise ValueError(
                f"truncation_lengths holds {length}; expected integers from 1 to window_length − 1 "
                f"= {window_length - 1}: within the window nothing longer cuts anything."
            )
    if law is not None:
        check_law(law)
    done = np.arange(1, window_length + 1)
    cuts = [np.ones(window_length)] + [(done % length != 0) * 1.0 for length in truncation_lengths]

    def measure(
        params: Any, state: EstimatorState, stream: Stream, rng_key: jax.Array
    ) -> dict[str, jax.Array]:
        carry, initial_carry = _rows((state.carry, state.initial_carry), num_rows, axis=0)
        position = jnp.asarray(state.position)
        window = _steps(stream, position, window_length, num_rows)
        dtype = jnp.result_type(float)
        gates = jnp.asarray(np.stack(cuts), dtype)
        if law is not None:
            keys = jax.random.split(rng_key, num_draws)
            drawn = jax.vmap(lambda key: law.sample_gates(key, window_length))(keys)
            gates = jnp.concatenate([gates, drawn.astype(dtype)])

        def gradients(carry: Any, gates: jax.Array) -> Any:
            return gradients_of_gates(
                cell, loss_fn, params, carry, window, gates, initial_carry=initial_carry
            )

        found = gradients(carry, gates)
        whole = jax.tree.map(lambda leaf: leaf[0], found)
        size = optax.tree.norm(whole)
        errors = jax.tree.map(lambda leaf, one: leaf - one[None], found, whole)
        norms = jax.vmap(optax.tree.norm)(errors) / size
        along = jax.vmap(lambda error: optax.tree.vdot(error, whole))(errors) / size**2
        metrics = {"gradient_norm": size}
        for i, length in enumerate(truncation_lengths, start=1):
            metrics |= {f"bias_{length}": norms[i], f"projection_{length}": along[i]}
        if law is not None:
            metrics["artbp_noise"] = jnp.sqrt(jnp.mean(norms[len(cuts) :] ** 2))
        if history_length:
            refreshed = _refreshed(
                cell, params, initial_carry, stream, position, history_length, num_rows
            )
            fresh = jax.tree.map(lambda leaf: leaf[0], gradients(refreshed, gates[:1]))
            difference = jax.tree.map(jnp.subtract, whole, fresh)
            metrics["carry_error"] = optax.tree.norm(difference) / optax.tree.norm(fresh)
        return metrics

    return measure


def _refreshed(
    cell: Cell,
    params: Any,
    initial_carry: Any,
    stream: Stream,
    position: jax.Array,
    length: int,
    num_rows: int | None,
) -> Any:
    """The carry that enters step `position`, made from the steps before it by these params."""
    history = _steps(stream, position - np.int32(length), length, num_rows)
    steps = position - np.int32(length) + jnp.arange(length, dtype=jnp.int32)
    first = steps == 0
    resets = history.resets
    resets = first if resets is None else resets | _tree.align(first, resets)
    leaving, _ = unroll(
        cell, params, initial_carry, history.xs, resets=resets, initial_carry=initial_carry
    )
    return _tree.select(position == 0, initial_carry, leaving)


def _steps(stream: Stream, start: jax.Array, length: int, num_rows: int | None) -> Stream:
    """Steps start, …, start + length − 1; losses of steps that do not exist are masked."""
    steps = start + jnp.arange(length, dtype=jnp.int32)
    exists = (steps >= 0) & (steps < stream.num_steps)
    index = jnp.clip(steps, 0, stream.num_steps - 1)
    fields = _rows((stream.xs, stream.targets), num_rows, axis=1)
    flags = [
        leaf if leaf is None or np.ndim(leaf) == 1 else _rows(leaf, num_rows, axis=1)
        for leaf in (stream.resets, stream.mask)
    ]
    xs, targets, resets, mask = _tree.gather(_tree.as_arrays((*fields, *flags)), index)
    if mask is not None:
        exists = mask & _tree.align(exists, mask)
    return Stream(xs, targets, resets, exists, num_steps=length)


def _rows(tree: Any, num_rows: int | None, *, axis: int) -> Any:
    if num_rows is None:
        return tree
    return jax.tree.map(lambda leaf: leaf[(slice(None),) * axis + (slice(num_rows),)], tree)
