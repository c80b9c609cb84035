"""The variance that random truncation adds to a gradient, exactly, for any cell and law.

States do not depend on the boundaries. The estimate is therefore the BPTT gradient plus a sum of
martingale differences, one for each step u that has a gate behind it, and

    Cov(g) = Σ_u Σ_k p_u(k) · c(k)/(1 − c(k)) · v_u(k) v_u(k)ᵀ
    v_u(k) = (1/S(k−1)) Σ_{m<k} S(k−1−m) G_{u,m}        the gradient through the gate at age k
    p_u(k)                                              the probability of age k at step u

See `lag_gradients` for G and `renewal` for p. Resets and the end of the stream are not boundaries:
at a reset the age continues, and no gradient flows (except through lasting leaves).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from artbp._checks import check_integer, check_key, check_like_params
from artbp.diagnostics.interval import check_confidence, student_t_quantile
from artbp.diagnostics.lag_gradients import (
    lag_gradients,
    lag_projections,
    random_signs,
    unroll_window,
)
from artbp.diagnostics.real_coordinates import ravel_real
from artbp.diagnostics.renewal import renewal_weights, root_variances
from artbp.stream import Stream, steps_to_run
from artbp.truncation.base import TruncationLaw
from artbp.unrolls.checks import Cell, check_stream
from artbp.unrolls.readout import LossFn


class TruncationVariance(NamedTuple):
    """The estimate that `truncation_variance` returns, for the gradient summed over the stream.

    Attributes:
      trace: of the covariance that the boundaries cause, E‖g − E g‖².
      standard_error: of `trace`.
      half_width: of the interval `trace ± half_width` at level `confidence`, Student's t.
      per_leaf, per_leaf_standard_error: the share of each leaf of params; floats in a tree.
      num_samples, confidence: as passed.
    """

    trace: float
    standard_error: float
    half_width: float
    per_leaf: Any
    per_leaf_standard_error: Any
    num_samples: int
    confidence: float


def truncation_covariance(
    cell: Cell,
    loss_fn: LossFn,
    law: TruncationLaw,
    params: Any,
    carry: Any,
    stream: Stream,
    *,
    per_row: bool = False,
    initial_carry: Any = None,
) -> np.ndarray:
    """Computes the exact covariance of a stream's ARTBP gradient over its boundaries; small models.

        Cov(g) = Σ_u Σ_k p_u(k) · c(k)/(1 − c(k)) · v_u(k) v_u(k)ᵀ

    g is the gradient of the losses summed over the stream, for frozen params and given data. An
    estimator's `normalizer` divides the covariance by normalizer².

    Cost: T²/2 backward steps. Memory: T gradients and `[P, P]`. With per_row, B times both.

    Args:
      cell, loss_fn, params: as for `artbp.artbp`. Results are as exact as the dtype of the params.
      carry: the carry that enters the first step to run (that after `stream.history`).
      stream: the steps to run.
      law: any law with c(k) < 1 within the stream.
      per_row: False: all rows share their boundaries, as in `artbp.artbp`. True: each row has its
        own, independent boundaries. Danger: rows must then not interact in the cell.
      initial_carry: the carry after a reset. Default: zeros, as in `artbp.unroll`.

    Returns:
      NumPy float64 `[P, P]`, in the order of `jax.flatten_util.ravel_pytree(params)`. A complex
      leaf has two rows for each of its numbers: in its place, all real parts of the gradient come
      first, then all imaginary parts.

    Raises:
      TypeError: law is not a `TruncationLaw`; params that are not floats.
      ValueError: c(k) = 1 within the stream, where the gradient has a bias, not a variance;
        per_row without an axis of rows; as `estimate` of `artbp.artbp`.

    Source: derived in the project; checked against enumeration.
    """
    check_stream(stream)
    stream = steps_to_run(stream)
    weights = renewal_weights(law, stream.num_steps)
    window = unroll_window(cell, loss_fn, params, carry, stream, initial_carry, per_row)
    size = ravel_real(window.params)[0].size
    covariance = np.zeros((size, size))
    for u in np.arange(1, stream.num_steps, dtype=np.int32):  # the steps with a gate behind them
        found = lag_gradients(window, u, stream.num_steps - 1, per_row)
        roots = root_variances(weights, np.asarray(found, np.float64)[:u]).reshape(-1, size)
        covariance += roots.T @ roots
    return covariance


def truncation_variance(
    cell: Cell,
    loss_fn: LossFn,
    laws: TruncationLaw | Sequence[TruncationLaw],
    params: Any,
    carry: Any,
    stream: Stream,
    *,
    rng_key: jax.Array,
    num_samples: int = 256,
    confidence: float = 0.95,
    per_row: bool = False,
    initial_carry: Any = None,
) -> Any:
    """Estimates the trace of `truncation_covariance`, in total and per leaf, for large models.

    Each sample draws a step u, uniform over 1, …, T − 1, and a direction z of random signs. Samples
    are independent, and the trace is the mean of

        (T − 1) · Σ_k p_u(k) · c(k)/(1 − c(k)) · (v_u(k) · z)²

    Cost: a forward and a backward pass over the stream. Then per sample, a backward pass over u
    steps without weight gradients, and for each leaf that the cell uses a forward-mode pass over T
    steps at once: for an LSTM of 128 units about half a forward and backward pass together. All
    laws share the samples; a further law costs almost nothing. Memory: z, and T carries per leaf.

    The samples are skewed: a few are large. At 95 % Student's interval covered the exact trace of a
    small RNN for 91 % of 200 keys with 32 or 64 samples, and for 96 % of 100 with 256. For an LSTM
    of 64 units, in the worst of four settings, it covered the trace for 50 of 60 keys with 64
    samples and for 20 of 20 with 500. Where it missed, it was too low.

    Args:
      laws: one law, or several, compared on the same samples.
      rng_key: consumed.
      num_samples: ≥ 2.
      confidence: level of the interval.
      The others: as for `truncation_covariance`.

    Returns:
      A `TruncationVariance`, or a list of them if `laws` is a sequence.

    Raises:
      TypeError, ValueError: as `truncation_covariance`; a bad num_samples or confidence.
    """
    check_key(rng_key)
    check_integer(2, num_samples=num_samples)
    check_confidence(confidence)
    check_stream(stream)
    stream = steps_to_run(stream)
    all_weights = _all_weights(laws, stream)
    window = unroll_window(cell, loss_fn, params, carry, stream, initial_carry, per_row)
    treedef = jax.tree.structure(window.params)
    samples = np.zeros((len(all_weights), num_samples, treedef.num_leaves))
    num_lags = stream.num_steps - 1
    if num_lags:
        step_key, sign_key = jax.random.split(rng_key)
        drawn = jax.random.randint(step_key, (num_samples,), 1, stream.num_steps)
        for i, u in enumerate(np.asarray(drawn, np.int32)):
            direction = random_signs(jax.random.fold_in(sign_key, i), window.params)
            products = lag_projections(window, u, direction, num_lags, per_row)
            products = np.asarray(products, np.float64)[:u]
            for found, weights in zip(samples, all_weights, strict=True):
                found[i] = num_lags * np.sum(root_variances(weights, products) ** 2, axis=(0, 1))
    results = [_mean_with_errors(found, treedef, confidence) for found in samples]
    return results if isinstance(laws, Sequence) else results[0]


def variance_along(
    cell: Cell,
    loss_fn: LossFn,
    laws: TruncationLaw | Sequence[TruncationLaw],
    params: Any,
    carry: Any,
    stream: Stream,
    direction: Any,
    *,
    initial_carry: Any = None,
) -> Any:
    """Computes Var(⟨g, z⟩), the exact variance of the ARTBP gradient along one direction z.

        zᵀ Cov(g) z = Σ_u Σ_k p_u(k) · c(k)/(1 − c(k)) · (v_u(k) · z)²

    The rows share their boundaries. Cost: for each of T − 1 steps, a backward pass over the steps
    before it without weight gradients, and a JVP of the cell per leaf over them. A further law is
    free. Memory: z, and T carries per leaf.

    Args:
      laws: one law, or several.
      direction: z, like params. Of complex numbers, ⟨g, z⟩ is Re Σ conj(g)·z: the sum of the
        products of their real and of their imaginary parts.
      The others: as for `truncation_covariance`.

    Returns:
      A float, or a list of them if `laws` is a sequence.

    Raises:
      TypeError, ValueError: as `truncation_covariance`; a direction that is not like params.
    """
    check_stream(stream)
    stream = steps_to_run(stream)
    all_weights = _all_weights(laws, stream)
    window = unroll_window(cell, loss_fn, params, carry, stream, initial_carry)
    check_like_params("direction", direction, window.params)
    direction = jax.tree.map(jnp.conj, direction)  # `lag_projections` takes no conjugate
    totals = [0.0] * len(all_weights)
    for u in np.arange(1, stream.num_steps, dtype=np.int32):
        products = lag_projections(window, u, direction, stream.num_steps - 1)
        along = np.asarray(products, np.float64)[:u].sum(axis=-1)  # over the leaves
        for i, weights in enumerate(all_weights):
            totals[i] += float(np.sum(root_variances(weights, along) ** 2))
    return totals if isinstance(laws, Sequence) else totals[0]


def _all_weights(laws: TruncationLaw | Sequence[TruncationLaw], stream: Stream) -> list[Any]:
    laws = laws if isinstance(laws, Sequence) else [laws]
    return [renewal_weights(law, stream.num_steps) for law in laws]


def _mean_with_errors(samples: np.ndarray, treedef: Any, confidence: float) -> TruncationVariance:
    """The mean over the first axis of `[samples, leaves]`, with standard errors."""
    number = len(samples)
    samples = np.concatenate([samples, samples.sum(axis=1, keepdims=True)], axis=1)
    *leaves, trace = samples.mean(axis=0).tolist()
    *leaf_errors, error = (samples.std(axis=0, ddof=1) / np.sqrt(number)).tolist()
    half_width = student_t_quantile(confidence, number - 1) * error
    trees = treedef.unflatten(leaves), treedef.unflatten(leaf_errors)
    return TruncationVariance(trace, error, half_width, *trees, number, confidence)
