"""Variance reduction without bias: several draws of boundaries on one forward pass."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.contrib.couplings import Coupling, check_coupling, sample_row_gates
from artbp.diagnostics.gate_gradients import gradients_of_gates
from artbp.estimators.real_parts import to_parts
from artbp.stream import Stream, steps_to_run
from artbp.truncation.base import TruncationLaw
from artbp.truncation.deterministic import check_length
from artbp.unrolls.checks import Cell, check_stream
from artbp.unrolls.readout import LossFn


class SampledTrace(NamedTuple):
    """The sampled trace of a covariance; float scalars.

    Attributes:
      trace: the sum of the variances of all entries of the gradient.
      standard_error: of the trace; trace ± 1.96 · standard_error is an interval of about 95 %.
    """

    trace: jax.Array
    standard_error: jax.Array


def multi_draw_gradient(
    cell: Cell,
    loss_fn: LossFn,
    law: TruncationLaw,
    params: Any,
    carry: Any,
    stream: Stream,
    rng_key: jax.Array,
    *,
    num_draws: int,
    coupling: Coupling = "independent",
    initial_carry: Any = None,
) -> Any:
    """Computes the mean ARTBP gradient of D draws of boundaries on one forward pass.

        (1/D) Σ_d gradient(gates[:, d]),    gates = sample_row_gates(law, key, T, D, coupling)

    It is unbiased for the stream's BPTT gradient under every coupling, because each draw is.
    Independent draws divide the variance by D. It takes one forward and D backward passes; for the
    memory see `gradients_of_gates`.

    Args:
      cell, loss_fn, law, params: as for `artbp.artbp`.
      carry: the carry that enters the first step to run (that after `stream.history`).
      stream: the window; its steps to run. Its end is no cut.
      rng_key: consumed.
      num_draws: the number D. The rows of a batch share the boundaries of a draw.
      coupling: of the draws; see `artbp.contrib.sample_row_gates`.
      initial_carry: the carry after a reset. Default: zeros, as in `artbp.unroll`.

    Returns:
      The gradient of the summed losses, like params.

    Raises:
      TypeError, ValueError: as `gradients_of_gates` and `sample_row_gates`.
    """
    check_stream(stream)
    stream = steps_to_run(stream)
    gates = sample_row_gates(law, rng_key, stream.num_steps, num_draws, coupling).T
    options = {"initial_carry": initial_carry}
    gradients = gradients_of_gates(cell, loss_fn, params, carry, stream, gates, **options)
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), gradients)


def coupling_variance(
    cell: Cell,
    loss_fn: LossFn,
    law: TruncationLaw,
    params: Any,
    carry: Any,
    stream: Stream,
    rng_key: jax.Array,
    *,
    coupling: Coupling,
    num_samples: int,
    num_draws: int | None = None,
    initial_carry: Any = None,
    batch_size: int = 16,
) -> SampledTrace:
    """Samples the variance of the gradient under a coupling, as the mean of ‖ĝ − g‖².

        ĝ = gradient of the summed losses under drawn gates,    g = BPTT gradient = E[ĝ]

    The standard error is that of independent samples, std/√N. Danger: the samples have heavy tails
    (rare long segments with large weights). With few samples both numbers are typically too small:
    compare couplings at thousands of samples. If boundaries are certain (c = 1), g is not the mean,
    and the result is the mean squared error.

    Args:
      num_samples: N ≥ 2.
      num_draws: None: each row of the batch has its own boundaries, coupled over rows. D: ĝ is
        `multi_draw_gradient`, coupled over draws.
      batch_size: samples that share one forward pass; their backward passes run in parallel.
      The others: as for `multi_draw_gradient`.

    Raises:
      TypeError, ValueError: as `multi_draw_gradient`; num_samples below 2; a carry without rows.
    """
    check_coupling(coupling)
    num_samples = check_length(num_samples, "num_samples")
    batch_size = check_length(batch_size, "batch_size")
    if num_samples < 2:
        raise ValueError("num_samples=1; expected 2 or more: one sample has no spread.")
    check_stream(stream)
    stream = steps_to_run(stream)

    def gradients_of(gates: jax.Array) -> Any:
        options = {"initial_carry": initial_carry}
        return gradients_of_gates(cell, loss_fn, params, carry, stream, gates, **options)

    ones = jnp.ones((1, stream.num_steps), jnp.result_type(float))
    exact = gradients_of(ones)
    num_columns = num_draws
    if num_columns is None:
        floats = jax.tree.leaves(_tree.partition(carry)[0])
        shapes = {jnp.shape(leaf)[:1] for leaf in floats}
        if len(shapes) != 1 or shapes == {()}:
            raise ValueError(
                f"The float leaves of the carry begin with the axes {sorted(shapes)}; expected the "
                "same axis of rows in all of them. Without rows, pass num_draws."
            )
        ((num_columns,),) = shapes

    def gates_of(rng_key: jax.Array) -> jax.Array:
        gates = sample_row_gates(law, rng_key, stream.num_steps, num_columns, coupling)
        return gates[None] if num_draws is None else gates.T

    def squared_distances(rng_keys: jax.Array) -> jax.Array:
        """Computes ‖ĝ − g‖² for each key."""
        gates = jax.vmap(gates_of)(rng_keys)
        flat = jnp.reshape(gates, (-1, *gates.shape[2:]))
        gradients = gradients_of(flat)

        def of_leaf(leaf: jax.Array, mean: jax.Array) -> jax.Array:
            draws = jnp.reshape(leaf, (*gates.shape[:2], -1))
            return jnp.sum((jnp.mean(draws, axis=1) - jnp.reshape(mean, (1, -1))) ** 2, axis=1)

        return jax.tree.reduce(jnp.add, jax.tree.map(of_leaf, *map(to_parts, (gradients, exact))))

    num_batches = -(-num_samples // batch_size)
    keys = jax.random.split(rng_key, (num_batches, batch_size))
    samples = jnp.ravel(lax.map(squared_distances, keys))[:num_samples]
    return SampledTrace(jnp.mean(samples), jnp.std(samples, ddof=1) / num_samples**0.5)
