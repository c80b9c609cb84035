"""A test of random boundaries for bias, with draws whose variance is known exactly.

Compensated gradients have heavy tails: at α = 4 their fourth moment is infinite. An interval from
the sample standard deviation is too narrow until a rare large draw occurs. The exact variance
(`artbp.diagnostics.variance_along`) gives an interval that does not depend on the draws.
"""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from artbp._checks import check_function, check_positive, hashable
from artbp.diagnostics.gate_gradients import gradients_of_gates
from artbp.diagnostics.interval import check_confidence
from artbp.diagnostics.real_coordinates import inner_product
from artbp.diagnostics.variance import variance_along
from artbp.stream import Stream, steps_to_run
from artbp.truncation.base import TruncationLaw, check_law
from artbp.unrolls.checks import Cell, check_stream
from artbp.unrolls.readout import LossFn


class SampledBias(NamedTuple):
    """The result of `sampled_bias`, relative to the gradient; floats.

    Attributes:
      bias: mean over draws of ⟨ĝ − g, g⟩ / ‖g‖². It is 0 without bias; at −1 nothing is left along
        the gradient; below −1 the sign is wrong.
      standard_error: of the bias, from the exact variance of the law.
      half_width: of the interval bias ± half_width at level `confidence`.
      deviation: the exact standard deviation of one draw, √Var⟨ĝ, g⟩ / ‖g‖².
      num_draws: number of draws made.
      confidence: as passed.
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
    """Tests a rule for random boundaries for bias along the gradient, for given data and params.

        g = BPTT gradient of the stream
        for d in range(num_draws):  ĝ_d = gradient with the gates sample_gates(key_d, T)
        bias = mean_d ⟨ĝ_d − g, g⟩ / ‖g‖²  ±  z · √(Var⟨ĝ, g⟩ / num_draws) / ‖g‖²

    Var is the exact variance of ARTBP under the law; a rule other than the law's own is detected if
    its mean differs by more than a few standard errors. The interval is correct as soon as the mean
    is nearly normal. Hundreds of draws suffice for polynomial laws. Thousands do not suffice where
    the variance of a law explodes, as for the geometric law and a memory above 2·L0: rare, large
    draws dominate it, and the interval misses more often than `confidence` says.

    Cost: a forward pass per `batch_size` draws, a backward pass per draw, one `variance_along`.

    Args:
      cell, loss_fn, params, carry, stream: as for `artbp.diagnostics.truncation_covariance`.
      laws: one law, or several, each with its own draws.
      rng_key: consumed.
      num_draws: draws of boundaries, shared by the rows of a batch; rounded up to whole batches.
      half_width: draw only until the half-width of a law's interval is at most this, relative to
        the gradient; num_draws is then the maximum. The variance is known before the first draw.
      confidence: two-sided level; for M simultaneous intervals use 1 − 0.05/M.
      initial_carry: the carry after a reset. Default: zeros, as in `artbp.unroll`.
      sample_gates: `(rng_key, T) -> gates [T]`, the rule under test. Default: that of the law.
      batch_size: draws per forward pass; memory grows with it.

    Returns:
      A `SampledBias`, or a list of them if `laws` is a sequence.

    Raises:
      TypeError, ValueError: as `truncation_covariance`; bad options; a gradient of zero.
    """
    all_laws = list(laws) if isinstance(laws, Sequence) else [laws]
    for law in all_laws:
        check_law(law)
    check_positive(integer=True, num_draws=num_draws, batch_size=batch_size)
    check_confidence(confidence)
    if half_width is not None:
        check_positive(half_width=half_width)
    check_stream(stream)
    stream = steps_to_run(stream)
    check_function(cell=cell, loss_fn=loss_fn)
    cell, loss_fn = hashable(cell), hashable(loss_fn)
    data, options = (params, carry, stream), {"initial_carry": initial_carry}
    found = _gradients(cell, loss_fn, *data, jnp.ones((1, stream.num_steps)), **options)
    gradient = jax.tree.map(lambda leaf: leaf[0], found)
    norm2 = float(optax.tree.norm(gradient, squared=True))
    if not np.isfinite(norm2):
        raise ValueError(
            "The gradient of this stream is NaN or infinite, so its bias cannot be measured. "
            "Expected finite data. Check params, xs, targets and carry."
        )
    if norm2 == 0:
        raise ValueError("The gradient of this stream is zero, so a relative bias does not exist.")
    variances = variance_along(cell, loss_fn, all_laws, *data, gradient, **options)
    quantile = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    results = []
    for i, (law, variance) in enumerate(zip(all_laws, variances, strict=True)):
        deviation = float(np.sqrt(variance)) / norm2
        wanted = np.inf if half_width is None else (quantile * deviation / half_width) ** 2
        num_batches = -(-int(max(1, min(num_draws, np.ceil(wanted)))) // batch_size)
        keys = jax.random.split(jax.random.fold_in(rng_key, i), (num_batches, batch_size))
        rule = law.sample_gates if sample_gates is None else sample_gates
        mean = _mean_product(cell, loss_fn, rule, data, options, gradient, keys)
        bias, total = float(mean) / norm2, num_batches * batch_size
        error = deviation / float(np.sqrt(total))
        results.append(SampledBias(bias, error, quantile * error, deviation, total, confidence))
    return results if isinstance(laws, Sequence) else results[0]


_gradients = jax.jit(gradients_of_gates, static_argnames=("cell", "loss_fn"))


@partial(jax.jit, static_argnames=("cell", "loss_fn", "rule"))
def _mean_product(
    cell: Cell, loss_fn: LossFn, rule: Any, data: Any, options: Any, gradient: Any, keys: Any
) -> jax.Array:
    """Computes the mean of ⟨ĝ − g, g⟩ over the draws."""
    params, carry, stream = data

    def batch(keys: jax.Array) -> jax.Array:
        gates = jax.vmap(lambda key: rule(key, stream.num_steps))(keys)
        found = gradients_of_gates(cell, loss_fn, params, carry, stream, gates, **options)
        errors = jax.tree.map(lambda leaf, whole: leaf - whole[None], found, gradient)
        return jax.vmap(lambda error: inner_product(error, gradient))(errors)

    return jnp.mean(lax.map(batch, keys))
