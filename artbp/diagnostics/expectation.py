"""The exact mean and covariance of a gradient estimator, by enumeration of all boundaries."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from artbp import _tree
from artbp._checks import check_positive
from artbp.diagnostics.real_coordinates import ravel_real
from artbp.estimators.base import EstimatorInfo, GradientEstimator
from artbp.estimators.run_pass import run_pass
from artbp.stream import Stream, steps_to_run
from artbp.truncation.base import TruncationLaw, check_law
from artbp.truncation.replay import replay
from artbp.unrolls.checks import check_params, check_stream

# 2^15 patterns; each further step doubles their number.
_LONGEST = 16


class ExactExpectation(NamedTuple):
    """The result of `exact_expectation`.

    Attributes:
      mean: E[g], like params.
      covariance: E[(g − E g)(g − E g)ᵀ], NumPy float64 `[P, P]`, in the order of
        `truncation_covariance`.
      total_probability: of the patterns that were run; it must be 1 to round-off.
      num_patterns: number of patterns with a probability above 0, which were run.
    """

    mean: Any
    covariance: np.ndarray
    total_probability: float
    num_patterns: int


def exact_expectation(
    make_estimator: Callable[[TruncationLaw], GradientEstimator],
    law: TruncationLaw,
    params: Any,
    carry: Any,
    stream: Stream,
    *,
    initial_carry: Any = None,
    batch_size: int = 256,
) -> ExactExpectation:
    """Computes mean and covariance of an estimator's gradient over one pass from all patterns.

        for X in all 2^(T−1) boundary patterns:
            g = sum of the gradients of one pass with make_estimator(replay(lengths of X, law))
            mean += P(X) · g,   P(X) = Π_t c(k_t)^X_t (1 − c(k_t))^(1 − X_t),   k_t the age

    The difference between `mean` and the gradient of full BPTT is the bias, without noise. The
    average is over boundaries only: other random draws of an estimator use one fixed key.

    Cost: 2^(T−1) passes; memory: as many gradients. At T = 16, on 2 CPU cores with compilation: 5 s
    and 0.1 GB for a scalar cell, 6 s and 0.2 GB for an RNN of 4 units and two rows.

    Args:
      make_estimator: called with a `truncation.replay` whose lengths are traced, for example
        `lambda law: artbp.artbp(cell, loss_fn, law)`. Its `estimate` is traced too, so its policy
        must be "dynamic" or None. Its segments must have the lengths of this law: `unbiased_tbptt`
        is refused, whose windows have a fixed length. A law with one pattern, such as
        `truncation.never()`, is passed as it is, and any estimator is run once.
      law: the law of the boundaries, shared by the rows. A fixed law has one pattern.
      params: float64 or complex128.
      carry: the carry that enters the first step to run (that after `stream.history`).
      stream: at most 16 steps to run. Its end is no boundary and belongs to no pattern.
      initial_carry: the carry after a reset. Default: zeros, as in `artbp.unroll`.
      batch_size: patterns that run in parallel. It changes memory and time, not the result.

    Raises:
      TypeError: law is not a `TruncationLaw`; params that are not floats.
      ValueError: more than 16 steps; a stream with `ends=False`; JAX or the params are not in
        float64; segments with other lengths than those of the law; a bad batch_size.

    Source: the probability of a pattern: arXiv 1705.08209, §4.
    """
    check_law(law)
    check_positive(batch_size=batch_size, integer=True)
    check_params(params)
    if jnp.result_type(float) != jnp.float64:
        raise ValueError(
            "Exact expectations need float64, which is switched off in JAX. Put the call and the "
            "creation of its arrays inside `with jax.enable_x64(True):`."
        )
    dtypes = {str(jnp.result_type(leaf)) for leaf in jax.tree.leaves(params)}
    if not dtypes <= {"float64", "complex128"}:
        raise ValueError(
            f"params have dtypes {sorted(dtypes)}; expected float64 or complex128. Cast "
            "params, carry and stream; where they are real, for example with jax.tree.map(lambda "
            "x: x.astype(float), params)."
        )
    check_stream(stream)
    if not stream.ends:
        raise ValueError(
            "The stream goes on in another one (ends=False), so its last segment has no end; "
            "expected a whole sequence. Pass artbp.Stream(xs, targets) of these steps alone."
        )
    stream = steps_to_run(stream)
    if stream.num_steps > _LONGEST:
        raise ValueError(
            f"The stream has {stream.num_steps} steps, hence 2^{stream.num_steps - 1} patterns; "
            f"expected at most {_LONGEST} steps. truncation_covariance needs no enumeration."
        )
    lengths, probabilities = _patterns(law, stream.num_steps)
    _, to_tree = ravel_real(params)

    def gradient(row: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(the gradient of one pass, whether its segments had the lengths of `row`)."""

        def fold(folded: Any, grads: Any, info: EstimatorInfo) -> Any:
            total, n, follows = folded
            follows &= info.length == row[jnp.minimum(n, len(row) - 1)]
            return _tree.accumulate(total, grads), n + 1, follows

        estimator = make_estimator(law if len(lengths) == 1 else replay(row, law))
        options = {"rng_key": jax.random.key(0), "initial_carry": initial_carry}
        state = estimator.init(params, carry, **options)
        initial = _tree.zero_sums(_tree.as_arrays(params)), jnp.int32(0), jnp.ones((), bool)
        folded, _ = run_pass(estimator, params, state, stream, fold=fold, initial=initial)
        total, _, follows = folded
        return ravel_real(total)[0], follows

    batch_size = min(batch_size, len(lengths))
    # Whole batches: a smaller one at the end would be compiled once more.
    padded = np.concatenate([lengths, np.repeat(lengths[:1], -len(lengths) % batch_size, axis=0)])
    run = jax.jit(lambda rows: lax.map(gradient, rows, batch_size=batch_size))
    gradients, follows = jax.device_get(run(jnp.asarray(padded)))
    if len(lengths) > 1 and not follows.all():
        raise ValueError(
            "The estimator does not end its segments where the law says, so the probabilities of "
            "boundary patterns are not those of its gradients. Expected one whose segments have "
            "the lengths of `law`, such as artbp.artbp(cell, loss_fn, law); or "
            "truncation.never(), with which any estimator is run once."
        )
    gradients = gradients[: len(lengths)]
    mean = probabilities @ gradients
    offsets = gradients - mean
    covariance = offsets.T @ (probabilities[:, None] * offsets)
    total = float(probabilities.sum())
    return ExactExpectation(to_tree(jnp.asarray(mean)), covariance, total, len(lengths))


def _patterns(law: TruncationLaw, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns segment lengths, int32 `[N, T]`, padded with 1, and probabilities above 0, `[N]`."""
    rows = np.arange(2 ** (num_steps - 1))
    age, segment = np.ones_like(rows), np.zeros_like(rows)
    probabilities, lengths = np.ones(len(rows)), np.ones((len(rows), num_steps), np.int32)
    for t in range(num_steps - 1):
        boundary = (rows >> t) % 2 == 1  # bit t of its number says where pattern i has a boundary
        hazard = np.asarray(law.hazard(age))
        probabilities *= np.where(boundary, hazard, 1 - hazard)
        lengths[rows, segment] = age
        segment = segment + boundary
        age = np.where(boundary, 1, age + 1)
    lengths[rows, segment] = age
    # Passes with equal numbers of segments finish together in a batch.
    order = np.argsort(segment, kind="stable")
    order = order[probabilities[order] > 0]
    return lengths[order], probabilities[order]
