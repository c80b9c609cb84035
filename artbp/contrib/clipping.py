"""The bias of clipping the gradient of each segment, and the segments that it comes from.

Clipping biases an unbiased random gradient. It changes the largest gradients most: under ARTBP
those of long segments, whose compensations carry the long memory.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from artbp import _tree
from artbp._checks import check_like_params
from artbp.diagnostics.interval import jackknife_error
from artbp.estimators.base import EstimatorInfo, GradientEstimator, check_estimator
from artbp.estimators.real_parts import to_parts
from artbp.estimators.run_pass import run_pass
from artbp.stream import Stream
from artbp.unrolls.checks import check_params, check_stream


class Comparison(NamedTuple):
    """A mean gradient c compared with another, r; floats. Equal gradients give 1, 1, 1, 0.

    Attributes:
      relative_norm: ‖c‖/‖r‖.
      cosine: ⟨c, r⟩/(‖c‖·‖r‖).
      projection: ⟨c, r⟩/‖r‖².
      relative_bias: ‖c − r‖/‖r‖.
    """

    relative_norm: Any
    cosine: Any
    projection: Any
    relative_bias: Any


class LengthBins(NamedTuple):
    """Segments by length, NumPy arrays [bins]; bin i holds the lengths 2^i, …, 2^(i+1) − 1.

    Attributes:
      shortest: 2^i, in time steps.
      count: number of segments, over all keys.
      share_bound: the share of these segments that clipping changed; NaN if there are none.
      share_of_steps: the share of all time steps that lies in these segments.
      norm_lost: Σ ‖g − clip(g)‖ / Σ ‖g‖ over these segments; NaN if there are none.
    """

    shortest: np.ndarray
    count: np.ndarray
    share_bound: np.ndarray
    share_of_steps: np.ndarray
    norm_lost: np.ndarray


class ClippingReport(NamedTuple):
    """The result of `clipping_report`; standard errors are over the keys, NaN for a single key.

    Attributes:
      against_unclipped: the mean clipped gradient against the mean unclipped one, same keys.
      against_reference: the mean clipped gradient against the reference; None without one.
      against_unclipped_error, against_reference_error: their standard errors.
      share_bound, norm_lost, by_length: as in `LengthBins`, over all segments and by length.
    """

    against_unclipped: Comparison
    against_unclipped_error: Comparison
    against_reference: Comparison | None
    against_reference_error: Comparison | None
    share_bound: float
    norm_lost: float
    by_length: LengthBins


def clipping_report(
    estimator: GradientEstimator,
    params: Any,
    carry: Any,
    stream: Stream,
    rng_keys: jax.Array,
    *,
    max_norm: float | None = None,
    max_value: float | None = None,
    reference: Any = None,
    initial_carry: Any = None,
) -> ClippingReport:
    """Measures the bias of clipping, with frozen params over one pass of the stream for each key::

        for key in rng_keys:
            for segment in one pass of the stream:
                whole[key] += gradient;  clipped[key] += clip(gradient)
        compare(mean(clipped), mean(whole));  compare(mean(clipped), reference)

    Noise that remains in the means adds to their norm and relative bias and reduces the cosine; it
    does not affect the projection on a reference. Each call compiles one program, which runs the
    keys one after another. Memory: two sums of gradients per key, on the device and, in float64, on
    the host. `clipping_reports` takes several thresholds at once.

    Args:
      estimator: any that can be jitted (policy None or "dynamic"), such as `artbp.artbp(...)`.
        Thresholds apply to its gradients, which its `normalizer` divides.
      params, carry: as for `estimator.init`.
      stream: one pass is taken per key.
      rng_keys: `[N]`, one for each pass. A deterministic estimator needs only one.
      max_norm: clip by global norm, as `optax.clip_by_global_norm`.
      max_value: clip each entry to ±max_value, as `optax.clip`. Give exactly one of the two.
      reference: a gradient like params to compare with, for instance the BPTT gradient of the
        stream, which one pass of `artbp.bptt(..., normalizer=)` gives.
      initial_carry: the carry after a reset. Default: zeros, as in `artbp.unroll`.

    Raises:
      ValueError: not exactly one threshold, or one that is not above 0; rng_keys without an axis
        of keys; a reference unlike params; as `estimator.estimate`.
      TypeError: params that are not floats.
    """
    threshold = {"max_norm": max_norm, "max_value": max_value}
    given = estimator, params, carry, stream, rng_keys, [threshold]
    return clipping_reports(*given, reference=reference, initial_carry=initial_carry)[0]


def clipping_reports(
    estimator: GradientEstimator,
    params: Any,
    carry: Any,
    stream: Stream,
    rng_keys: jax.Array,
    thresholds: Sequence[Mapping[str, float | None]],
    *,
    reference: Any = None,
    initial_carry: Any = None,
) -> list[ClippingReport]:
    """Makes a `clipping_report` for each threshold from the same gradients::

        [clipping_report(..., **threshold) for threshold in thresholds]

    Each gradient is computed once. Memory: one more sum of gradients per key and threshold.

    Args:
      thresholds: each with one of the keywords, `{"max_norm": 1.0}` or `{"max_value": 0.1}`.
      The others: as for `clipping_report`.

    Raises:
      ValueError, TypeError: as `clipping_report`.
    """
    check_estimator(estimator)
    check_params(params)
    check_stream(stream)
    clips = [_clip(**threshold) for threshold in thresholds]
    params = _tree.as_arrays(params)
    keys = jnp.shape(rng_keys) if _tree.is_key(rng_keys) else jnp.shape(rng_keys)[:-1]
    if len(keys) != 1 or not keys[0]:
        raise ValueError(
            f"rng_keys has shape {jnp.shape(rng_keys)}; expected one axis of one or more keys, as "
            "from jax.random.split(rng_key, 100)."
        )
    if reference is not None:
        check_like_params("reference", reference, params)
        reference = _flat(reference, 1)[0]

    def fold(folded: Any, gradient: Any, info: EstimatorInfo) -> Any:
        pairs = zip(folded[1], clips, strict=True)
        sums = [_add(one, gradient, clip(gradient), info.length) for one, clip in pairs]
        return _tree.accumulate(folded[0], gradient), sums

    @jax.jit
    def run(params: Any, carry: Any, stream: Stream, rng_keys: jax.Array) -> tuple[Any, ...]:
        def one_pass(rng_key: jax.Array) -> tuple[Any, ...]:
            zeros, tally = _tree.zero_sums(params), jnp.zeros((stream.num_steps.bit_length(), 5))
            initial = zeros, [(zeros, tally)] * len(clips)
            state = estimator.init(params, carry, rng_key=rng_key, initial_carry=initial_carry)
            return run_pass(estimator, params, state, stream, fold=fold, initial=initial)[0]

        return lax.map(one_pass, rng_keys)

    whole, sums = jax.device_get(run(params, carry, stream, rng_keys))
    whole = _flat(whole, *keys)
    reports = []
    for tree, tallies in sums:
        clipped, tally = _flat(tree, *keys), np.asarray(tallies, np.float64).sum(axis=0)
        unclipped, referred = _jackknife(_compare, clipped, whole), (None, None)
        if reference is not None:
            referred = _jackknife(lambda mean: _compare(mean, reference), clipped)
        total = _bins(tally.sum(axis=0, keepdims=True))
        shares = total.share_bound[0], total.norm_lost[0], _bins(tally)
        reports.append(ClippingReport(*unclipped, *referred, *shares))
    return reports


def _add(sums: tuple[Any, jax.Array], gradient: Any, clipped: Any, length: jax.Array) -> Any:
    """Adds the clipped gradient of a segment to the sum and its numbers to the tally of its bin."""
    total, tally = sums
    lost = optax.tree.norm(jax.tree.map(jnp.subtract, gradient, clipped))
    is_clipped = jnp.where(jnp.isnan(lost), lost, (lost > 0).astype(lost.dtype))
    row = [1, is_clipped, length, optax.tree.norm(gradient), lost]
    row = jnp.stack([jnp.asarray(x, float) for x in row])
    return _tree.accumulate(total, clipped), tally.at[31 - lax.clz(length)].add(row)


def _clip(max_norm: float | None = None, max_value: float | None = None) -> Callable[[Any], Any]:
    if (max_norm is None) == (max_value is None):
        raise ValueError(f"{max_norm=} and {max_value=}; expected exactly one of them.")
    threshold: Any = max_value if max_norm is None else max_norm
    if isinstance(threshold, (bool, str)) or np.ndim(threshold) or not threshold > 0:
        raise ValueError(f"{max_norm=}, {max_value=}; expected a number above 0, or infinity.")
    clip = (optax.clip if max_norm is None else optax.clip_by_global_norm)(threshold)
    return lambda gradient: clip.update(gradient, clip.init(gradient))[0]


def _flat(tree: Any, rows: int) -> np.ndarray:
    """Concatenates all leaves, and both parts of complex ones, to float64 `[rows, P]`."""
    leaves = jax.tree.leaves(to_parts(tree))
    leaves = [np.asarray(leaf, np.float64).reshape(rows, -1) for leaf in leaves]
    return np.concatenate(leaves, axis=1)


def _compare(c: np.ndarray, r: np.ndarray) -> Comparison:
    inner, norm, other = c @ r, np.linalg.norm(c), np.linalg.norm(r)
    bias = np.linalg.norm(c - r)
    with np.errstate(divide="ignore", invalid="ignore"):  # a zero gradient has no direction: NaN
        return Comparison(norm / other, inner / (norm * other), inner / (r @ r), bias / other)


def _jackknife(
    statistic: Callable[..., Comparison], *samples: np.ndarray
) -> tuple[Comparison, Comparison]:
    """Computes a function of means over keys, and its standard errors."""
    num_keys, sums = len(samples[0]), [rows.sum(axis=0) for rows in samples]
    value = statistic(*(total / num_keys for total in sums))
    if num_keys == 1:
        return value, Comparison(*[np.nan] * len(value))

    left_out = [
        statistic(*((total - row) / (num_keys - 1) for total, row in zip(sums, rows, strict=True)))
        for rows in zip(*samples, strict=True)
    ]
    return value, Comparison(*jackknife_error(np.array(left_out)))


def _bins(tally: np.ndarray) -> LengthBins:
    """Turns a tally `[bins, 5]` into shares."""
    count, bound, steps, norm, lost = tally.T
    with np.errstate(invalid="ignore"):  # no segments: NaN
        shares = bound / count, steps / steps.sum(), lost / norm
    return LengthBins(2 ** np.arange(len(tally)), count.astype(int), *shares)
