"""The bias of random boundaries, from draws whose spread is known exactly.

Compensated gradients have heavy tails: at α = 4 their fourth moment is infinite, and an interval
made from a sample's own standard deviation is too narrow whenever the rare large draw has not come
yet. But the variance is known without sampling (see `artbp.diagnostics.variance`), so the interval
does not depend on luck.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from artbp.diagnostics.gate_gradients import gradients_of_gates
from artbp.diagnostics.variance import variance_along
from artbp.stream import Stream
from artbp.truncation.base import TruncationLaw, check_law
from artbp.unrolls.checks import Cell, check_positive
from artbp.unrolls.readout import LossFn


class SampledBias(NamedTuple):
    """What `sampled_bias` measures; relative to the gradient, floats.

    Attributes:
      bias: mean over draws of ⟨ĝ − g, g⟩ / ‖g‖². 0 for an unbiased estimator, −1 where nothing is
        left along the gradient, below −1 where the sign is wrong.
      standard_error: of the bias, from the exact variance of the law.
      half_width: of the interval bias ± half_width at the level `confidence`.
      deviation: of one draw, exactly: √Var⟨ĝ, g⟩ / ‖g‖².
      num_draws: that were made.
      confidence: as asked for.
    """

    bias: float
    standard_error: float
    half_width: float
    deviation: float
    num_draws: int
    confidence: float


def sampled_bias(
    cell: Cell,
    loss_fn: LossFn,
    laws: TruncationLaw | Sequence[TruncationLaw],
    params: Any,
    carry: Any,
    stream: Stream,
    rng_key: jax.Array,
    *,
    num_draws: int,
    half_width: float | None = None,
    confidence: float = 0.95,
    initial_carry: Any = None,
    sample_gates: Callable[[jax.Array, int], jax.Array] | None = None,
    batch_size: int = 64,
) -> Any:
    """Tests a rule of random boundaries for bias along the gradient, on data and params as given.

        g = BPTT gradient of the stream
        for d in range(num_draws):  ĝ_d = gradient with the gates sample_gates(key_d, T)
        bias = mean_d ⟨ĝ_d − g, g⟩ / ‖g‖²  ±  z · √(Var⟨ĝ, g⟩ / num_draws) / ‖g‖²

    The variance is that of ARTBP under the law, exact. So the interval is honest as soon as the
    mean is nearly normal, and another rule than the law's own is seen wherever its mean is off by
    more than a few standard errors. Draws by the hundred are enough for polynomial laws; where a
    law's variance explodes, as the geometric one's does for a memory above 2·L0, the rare draws
    that make it are so large that even thousands are not: the interval then misses more often than
    `confidence` says.

    It is also known before the first draw, so `half_width` may choose how many there are.

    Cost: one forward pass for `batch_size` draws, a backward pass for each, and `variance_along`,
    which several laws share.

    Args:
      cell, loss_fn, params, carry, stream: as for `artbp.artbp`; one window.
      laws: one law, or several, each with draws of its own.
      rng_key: consumed.
      num_draws: draws of boundaries, shared by the rows of a batch. Rounded up to whole batches.
      half_width: draws only until the half-width of a law's interval is this or less, relative to
        the gradient; num_draws is then the most.
      confidence: two-sided level; for M intervals that are to hold together take 1 − 0.05/M.
      initial_carry: after a reset. Default: `carry`.
      sample_gates: `(rng_key, T) -> gates [T]`, the rule under test. Default: that of the law.
      batch_size: draws on one forward pass; memory grows with it.

    Returns:
      A `SampledBias`, or a list of them where `laws` is a sequence.

    Raises:
      TypeError, ValueError: as `truncation_covariance`; bad options; a gradient of zero.
    """
    several = isinstance(laws, Sequence)
    all_laws = list(laws) if several else [laws]
    for law in all_laws:
        check_law(law)
    check_positive(integer=True, num_draws=num_draws, batch_size=batch_size)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; expected a number between 0 and 1.")
    if half_width is not None:
        check_positive(half_width=half_width)
    data = params, carry, stream, initial_carry
    gradient = _gradient(cell, loss_fn, *data)
    size2 = float(optax.tree.norm(gradient, squared=True))
    if size2 == 0:
        raise ValueError("The gradient of this stream is zero: nothing can be relative to it.")
    variances = variance_along(
        cell, loss_fn, all_laws, params, carry, stream, gradient, initial_carry=initial_carry
    )
    quantile = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    results = []
    for i, (law, variance) in enumerate(zip(all_laws, variances, strict=True)):
        deviation = float(np.sqrt(variance)) / size2
        wanted: float = num_draws
        if half_width is not None:
            wanted = max(1, min(num_draws, np.ceil((quantile * deviation / half_width) ** 2)))
        num_batches = -(-int(wanted) // batch_size)
        keys = jax.random.split(jax.random.fold_in(rng_key, i), (num_batches, batch_size))
        rule = law.sample_gates if sample_gates is None else sample_gates
        mean = _mean_product(cell, loss_fn, *data, gradient, keys, rule)
        error = deviation / float(np.sqrt(num_batches * batch_size))
        results.append(
            SampledBias(
                bias=float(mean) / size2,
                standard_error=error,
                half_width=quantile * error,
                deviation=deviation,
                num_draws=num_batches * batch_size,
                confidence=confidence,
            )
        )
    return results if several else results[0]


@partial(jax.jit, static_argnames=("cell", "loss_fn"))
def _gradient(
    cell: Cell, loss_fn: LossFn, params: Any, carry: Any, stream: Stream, initial_carry: Any
) -> Any:
    """The BPTT gradient g."""
    gates = jnp.ones((1, stream.num_steps))
    found = gradients_of_gates(
        cell, loss_fn, params, carry, stream, gates, initial_carry=initial_carry
    )
    return jax.tree.map(lambda leaf: leaf[0], found)


@partial(jax.jit, static_argnames=("cell", "loss_fn", "sample_gates"))
def _mean_product(
    cell: Cell,
    loss_fn: LossFn,
    params: Any,
    carry: Any,
    stream: Stream,
    initial_carry: Any,
    gradient: Any,
    keys: jax.Array,
    sample_gates: Callable[[jax.Array, int], jax.Array],
) -> jax.Array:
    """The mean of ⟨ĝ − g, g⟩ over the draws."""

    def batch(keys: jax.Array) -> jax.Array:
        gates = jax.vmap(lambda key: sample_gates(key, stream.num_steps))(keys)
        found = gradients_of_gates(
            cell, loss_fn, params, carry, stream, gates, initial_carry=initial_carry
        )
        errors = jax.tree.map(lambda leaf, whole: leaf - whole[None], found, gradient)
        return jnp.asarray(jax.vmap(lambda error: optax.tree.vdot(error, gradient))(errors))

    return jnp.mean(lax.map(batch, keys))
