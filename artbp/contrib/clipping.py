"""What clipping the gradient of each segment does to an estimator: bias, and where it comes from.

    clipped = Σ over segments of clip(gradient of the segment)

An unbiased gradient that is clipped is no longer unbiased. The segments that lose most are those
with the largest gradients: under ARTBP the long ones, whose compensations carry the long memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from artbp import _tree
from artbp.estimators.base import GradientEstimator
from artbp.stream import Stream
from artbp.unrolls.checks import check_params


class Comparison(NamedTuple):
    """A mean gradient c against another, r; floats. Equal gradients: 1, 1, 1, 0.

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
    """Segments by length, NumPy arrays [bins]: bin i holds the lengths 2^i, …, 2^(i+1) − 1.

    Attributes:
      shortest: 2^i, in time steps.
      count: segments, over all keys.
      share_bound: of these segments, the share that clipping changed; NaN where there are none.
      share_of_steps: of all time steps, the share that lies in these segments.
      norm_lost: Σ ‖g − clip(g)‖ / Σ ‖g‖ over these segments; NaN where there are none.
    """

    shortest: np.ndarray
    count: np.ndarray
    share_bound: np.ndarray
    share_of_steps: np.ndarray
    norm_lost: np.ndarray


class ClippingReport(NamedTuple):
    """What `clipping_report` returns; standard errors are over the keys, NaN with a single one.

    Attributes:
      against_unclipped: the mean clipped gradient against the mean unclipped one, same keys.
      against_unclipped_error: its standard errors.
      against_reference: the mean clipped gradient against the reference; None without one.
      against_reference_error: its standard errors; None without a reference.
      share_bound: the share of all segments that clipping changed.
      norm_lost: Σ ‖g − clip(g)‖ / Σ ‖g‖ over all segments.
      by_length: the same, and more, by the length of the segment.
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
) -> ClippingReport:
    """Measures what clipping costs, with frozen params over one pass of the stream for each key::

        for key in rng_keys:
            for segment in one pass of the stream:
                whole[key] += gradient;  clipped[key] += clip(gradient)
        compare(mean(clipped), mean(whole));  compare(mean(clipped), reference)

    Noise that the keys leave in a mean gradient adds to its norm and to the relative bias, and
    takes from the cosine; the projection on a reference has no such error. Runs as one compiled
    program, key after key; each call compiles it anew. Memory: two sums of gradients for each key,
    on the device and, in float64, on the host. `clipping_reports` takes several thresholds at once.

    Args:
      estimator: any, such as `artbp.artbp(...)`; one that can be jitted, so of policy None or
        "dynamic". Thresholds are in the units of what it returns: its `normalizer` counts.
      params, carry: as for `estimator.init`.
      stream: one pass of it is taken.
      rng_keys: `[N]`. Each drives one pass. An estimator without chance needs only one.
      max_norm: clip by global norm, as `optax.clip_by_global_norm`; exactly one of the two.
      max_value: clip each entry to ±max_value, as `optax.clip`.
      reference: like params: the gradient to compare with, for instance the BPTT gradient of the
        stream, which one pass of `artbp.bptt(..., normalizer=)` gives.

    Raises:
      ValueError: not exactly one threshold, or one that is not above 0; rng_keys without an axis
        of keys; a reference unlike params; as `estimator.estimate`.
      TypeError: params that are not floats.
    """
    threshold = {"max_norm": max_norm, "max_value": max_value}
    [report] = clipping_reports(
        estimator, params, carry, stream, rng_keys, [threshold], reference=reference
    )
    return report


def clipping_reports(
    estimator: GradientEstimator,
    params: Any,
    carry: Any,
    stream: Stream,
    rng_keys: jax.Array,
    thresholds: Sequence[Mapping[str, float | None]],
    *,
    reference: Any = None,
) -> list[ClippingReport]:
    """`clipping_report` for each threshold, from the same gradients::

        [clipping_report(..., **threshold) for threshold in thresholds]

    Compiled once, and each gradient is computed once, which is what takes the time. Memory: a sum
    of gradients more for each key and threshold.

    Args:
      thresholds: each with one of the keywords, `{"max_norm": 1.0}` or `{"max_value": 0.1}`.
      The others: as for `clipping_report`.

    Raises:
      ValueError, TypeError: as `clipping_report`.
    """
    check_params(params)
    clips = [_clip(**threshold) for threshold in thresholds]
    params = _tree.as_arrays(params)
    num_bins = stream.num_steps.bit_length()
    num_keys = _num_keys(rng_keys)
    if reference is not None:
        reference = _flat(_like(reference, params), 1)[0]

    @jax.jit
    def run(params: Any, carry: Any, stream: Stream, rng_keys: jax.Array) -> tuple[Any, ...]:
        def one_pass(rng_key: jax.Array) -> tuple[Any, ...]:
            def segment(loop: tuple[Any, ...]) -> tuple[Any, ...]:
                whole, sums, state, _ = loop
                gradient, state, info = estimator.estimate(params, state, stream)
                pairs = zip(sums, clips, strict=True)
                sums = [_add(one, gradient, clip(gradient), info.length) for one, clip in pairs]
                return _tree.accumulate(whole, gradient), sums, state, info.end_of_stream

            zeros = _tree.zero_sums(params)
            state = estimator.init(params, carry, rng_key=rng_key)
            sums = [(zeros, jnp.zeros((num_bins, 5)))] * len(clips)
            start = zeros, sums, state, jnp.zeros((), bool)
            return lax.while_loop(lambda loop: ~loop[-1], segment, start)[:2]

        return lax.map(one_pass, rng_keys)

    whole, sums = jax.device_get(run(params, carry, stream, rng_keys))
    whole = _flat(whole, num_keys)

    def report(clipped: np.ndarray, tally: np.ndarray) -> ClippingReport:
        unclipped = _jackknife(_compare, clipped, whole)
        referred = None, None
        if reference is not None:
            referred = _jackknife(lambda mean: _compare(mean, reference), clipped)
        _, share_bound, _, norm_lost = _shares(tally.sum(axis=0))
        return ClippingReport(*unclipped, *referred, share_bound, norm_lost, _by_length(tally))

    return [
        report(_flat(clipped, num_keys), np.asarray(tally, np.float64).sum(axis=0))
        for clipped, tally in sums
    ]


def _add(sums: tuple[Any, jax.Array], gradient: Any, kept: Any, length: jax.Array) -> Any:
    """Adds what was kept of a segment's gradient, and the segment to the tally of its bin."""
    clipped, tally = sums
    lost = optax.global_norm(jax.tree.map(jnp.subtract, gradient, kept))
    row = [1, lost != 0, length, optax.global_norm(gradient), lost]
    row = jnp.stack([jnp.asarray(x, float) for x in row])
    return _tree.accumulate(clipped, kept), tally.at[31 - lax.clz(length)].add(row)


def _clip(max_norm: float | None = None, max_value: float | None = None) -> Callable[[Any], Any]:
    if max_norm is not None and max_value is None:
        _check_above_zero(max_norm=max_norm)
        transform = optax.clip_by_global_norm(max_norm)
    elif max_value is not None and max_norm is None:
        _check_above_zero(max_value=max_value)
        transform = optax.clip(max_value)
    else:
        raise ValueError(
            f"max_norm={max_norm!r} and max_value={max_value!r}; expected exactly one of them."
        )
    return lambda gradient: transform.update(gradient, transform.init(gradient))[0]


def _check_above_zero(**named: float) -> None:
    for name, threshold in named.items():
        if not threshold > 0:
            raise ValueError(f"{name}={threshold!r}; expected a number above 0, or infinity.")


def _num_keys(rng_keys: jax.Array) -> int:
    shape = jnp.shape(rng_keys) if _tree.is_key(rng_keys) else jnp.shape(rng_keys)[:-1]
    if len(shape) != 1 or not shape[0]:
        raise ValueError(
            f"rng_keys has shape {jnp.shape(rng_keys)}; expected one axis of one or more keys, as "
            "from jax.random.split(rng_key, 100)."
        )
    return shape[0]


def _like(reference: Any, params: Any) -> Any:
    given, expected = (jax.tree.map(jnp.shape, tree) for tree in (reference, params))
    if given != expected:
        raise ValueError(f"reference has shapes {given}; expected those of params, {expected}.")
    return reference


def _flat(tree: Any, rows: int) -> np.ndarray:
    """All leaves side by side, float64 `[rows, P]`."""
    leaves = [np.asarray(leaf, np.float64).reshape(rows, -1) for leaf in jax.tree.leaves(tree)]
    return np.concatenate(leaves, axis=1)


def _compare(c: np.ndarray, r: np.ndarray) -> Comparison:
    inner, norm, other = c @ r, np.linalg.norm(c), np.linalg.norm(r)
    with np.errstate(divide="ignore", invalid="ignore"):  # a zero gradient has no direction: NaN
        return Comparison(
            norm / other, inner / (norm * other), inner / (r @ r), np.linalg.norm(c - r) / other
        )


def _jackknife(
    statistic: Callable[..., Comparison], *samples: np.ndarray
) -> tuple[Comparison, Comparison]:
    """A function of means over keys, and its standard errors from leaving one key out at a time."""
    num_keys = samples[0].shape[0]
    sums = [rows.sum(axis=0) for rows in samples]
    value = statistic(*(total / num_keys for total in sums))
    if num_keys == 1:
        return value, Comparison(*[np.nan] * len(value))

    def without(n: int) -> Comparison:
        pairs = zip(sums, samples, strict=True)
        return statistic(*((total - rows[n]) / (num_keys - 1) for total, rows in pairs))

    left_out = np.array([without(n) for n in range(num_keys)])
    return value, Comparison(*np.sqrt((num_keys - 1) * left_out.var(axis=0)))


def _shares(tally: np.ndarray) -> tuple[Any, ...]:
    """(count, share bound, steps, norm lost) of a tally [..., 5]."""
    count, bound, steps, norm, lost = np.moveaxis(tally, -1, 0)
    with np.errstate(invalid="ignore"):  # no segments: NaN
        return count.astype(int), bound / count, steps, lost / norm


def _by_length(tally: np.ndarray) -> LengthBins:
    count, share_bound, steps, norm_lost = _shares(tally)
    shortest = 2 ** np.arange(len(tally))
    return LengthBins(shortest, count, share_bound, steps / steps.sum(), norm_lost)
