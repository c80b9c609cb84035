"""The type of every gradient estimator: two pure functions in a NamedTuple."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from artbp import _tree
from artbp.unrolls.checks import check_finite, check_params


class EstimatorState(NamedTuple):
    """What the next estimate needs.

    Attributes:
      position: int32, the time step of the stream that comes next.
      num_estimates: int32, how many estimates have been made since `init`.
      carry: the carry that enters the next step.
      initial_carry: the carry at the beginning of the stream and after its resets.
      rng_key: the key of all random draws. Segment i is drawn with `fold_in(rng_key, i)`, so
        boundaries never depend on data or parameters.
      scratch: buffers of the kernel, never read before they are written. A jitted step to which the
        state is donated reuses them in place. A checkpoint may leave them out.
      inner_state: what else this estimator needs, such as RTRL's sensitivities or the carries of a
        window; () where there is nothing. It belongs in a checkpoint, unlike scratch.
    """

    position: jax.Array | np.integer
    num_estimates: jax.Array | np.integer
    carry: Any
    initial_carry: Any
    rng_key: jax.Array
    scratch: Any
    inner_state: Any = ()


class EstimatorInfo(NamedTuple):
    """What a person may want to plot about one estimate; all scalars.

    Attributes:
      loss_sum: summed losses, not normalised.
      num_losses: int32, how many losses were summed: steps times rows, without the masked ones.
        loss_sum / num_losses is the mean loss.
      length: int32, the segment's length in time steps.
      max_compensation: the largest factor 1/(1 − c) on the backward flow; 1 without truncation.
      max_weight: the product of the factors, 1/S(length − 1): the weight of the loss of the last
        step in the gradient through the first step.
      end_of_stream: bool, whether the segment was ended by the stream; the next one starts at
        the beginning, with the initial carry.
      extra: further scalars of this estimator, by name; see its docstring.
    """

    loss_sum: jax.Array
    num_losses: jax.Array
    length: jax.Array
    max_compensation: jax.Array
    max_weight: jax.Array
    end_of_stream: jax.Array
    extra: dict[str, jax.Array] = {}  # noqa: RUF012  # read, never written


Result = tuple[Any, EstimatorState, EstimatorInfo]


class GradientEstimator(NamedTuple):
    """A gradient estimator, in the manner of `optax.GradientTransformation`.

    Attributes:
      init: `init(params, carry, *, rng_key) -> state`.
      estimate: `estimate(params, state, stream) -> (grads, state, info)`, one segment. With frozen
        params, the gradients of one pass of the stream sum to the estimate of the gradient of
        the whole sequence.
    """

    init: Callable[..., EstimatorState]
    estimate: Callable[..., Result]


def start(
    params: Any, carry: Any, rng_key: jax.Array, *, scratch: Any = (), inner_state: Any = ()
) -> EstimatorState:
    """The state at the beginning of a stream.

    Raises:
      TypeError, ValueError: params that are not floats, or not finite.
    """
    check_params(params)
    check_finite(params)
    carry = _tree.as_arrays(carry)
    zero = jnp.zeros((), jnp.int32)
    # Copies, so that a donated state never holds one buffer twice nor one of the caller's.
    copies = jax.tree.map(jnp.copy, (zero, zero, carry, carry, rng_key))
    return EstimatorState(*copies, scratch=scratch, inner_state=inner_state)
