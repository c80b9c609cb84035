"""One pass of a stream with frozen parameters, for any estimator."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from artbp import _tree
from artbp.estimators.base import EstimatorInfo, EstimatorState, GradientEstimator, check_estimator
from artbp.stream import Stream
from artbp.unrolls.checks import check_params


def add_gradients(total: Any, grads: Any, info: EstimatorInfo) -> Any:
    """The default fold of `run_pass`: the sum of the gradients, float32 or wider."""
    del info
    return _tree.accumulate(total, grads)


def run_pass(
    estimator: GradientEstimator,
    params: Any,
    state: EstimatorState,
    stream: Stream,
    *,
    fold: Callable[[Any, Any, EstimatorInfo], Any] = add_gradients,
    initial: Any = None,
) -> tuple[Any, EstimatorState]:
    """Runs an estimator over the rest of one pass of a stream, with frozen params::

        folded = initial
        while True:
            grads, state, info = estimator.estimate(params, state, stream)
            folded = fold(folded, grads, info)
            if info.end_of_stream: break

    With the default fold the result is the estimate of the gradient of the whole sequence.

    It can be jitted and vmapped where `estimate` can. The loop is then a `jax.lax.while_loop`, so
    `fold` must return arrays of fixed shapes. Danger: under `jax.vmap` that loop selects over the
    whole state after every segment, buffers included: choose a small `block_size`. Called directly,
    it is a Python loop, and `fold` may be any function, such as one that appends to a list.

    Args:
      estimator, params, stream: any `GradientEstimator`, and what its `estimate` takes.
      state: from `estimator.init`; or from an earlier `estimate`, and then the rest of its pass is
        run.
      fold: `fold(folded, grads, info) -> folded`. The default adds up the gradients.
      initial: what `fold` starts from. Default: zeros like params, float32 or wider.

    Returns:
      (folded, the state at the beginning of the next pass).

    Raises:
      TypeError, ValueError: as `estimate`.
    """
    check_estimator(estimator)
    check_params(params)
    folded = _tree.zero_sums(_tree.as_arrays(params)) if initial is None else initial
    if _tree.is_traced((params, state, stream, folded)):

        def body(loop: tuple[Any, EstimatorState, jax.Array]) -> tuple[Any, EstimatorState, Any]:
            folded, state, _ = loop
            grads, state, info = estimator.estimate(params, state, stream)
            return fold(folded, grads, info), state, info.end_of_stream

        loop = (folded, state, jax.numpy.zeros((), bool))
        return lax.while_loop(lambda loop: ~loop[2], body, loop)[:2]
    while True:
        grads, state, info = estimator.estimate(params, state, stream)
        folded = fold(folded, grads, info)
        if info.end_of_stream:
            return folded, state
