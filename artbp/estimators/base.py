"""The type of every gradient estimator: two pure functions in a NamedTuple."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np


class EstimatorState(NamedTuple):
    """What the next segment needs.

    Attributes:
      position: int32, the time step of the stream that comes next.
      segment: int32, how many segments have been run since `init`.
      carry: the carry that enters the next step.
      initial_carry: the carry at the beginning of the stream and after its resets.
      rng_key: the key that all boundaries come from: segment i is drawn with
        `fold_in(rng_key, i)`, so boundaries never depend on data or parameters.
      scratch: buffers of the kernel, never read before they are written. Donate the state to a
        jitted step and they are reused in place; a checkpoint may leave them out.
    """

    position: jax.Array | np.integer
    segment: jax.Array | np.integer
    carry: Any
    initial_carry: Any
    rng_key: jax.Array
    scratch: Any


class EstimatorInfo(NamedTuple):
    """What a person may want to plot about one segment; all scalars.

    Attributes:
      loss_sum: summed losses, not normalised.
      num_steps: int32, how many losses were summed: steps times rows, less the masked. It counts
        losses, not time steps: loss_sum / num_steps is the mean loss. Time steps are `length`.
      length: int32, the segment's length in time steps.
      max_compensation: the largest factor 1/(1 − c) on the backward flow; 1 without truncation.
      max_weight: the product of the factors, 1/S(length − 1): the weight with which the loss of
        the last step reaches the first.
      end_of_stream: bool, whether the segment was ended by the stream; the next one starts at
        the beginning, with the initial carry.
    """

    loss_sum: jax.Array
    num_steps: jax.Array
    length: jax.Array
    max_compensation: jax.Array
    max_weight: jax.Array
    end_of_stream: jax.Array


class GradientEstimator(NamedTuple):
    """A gradient estimator, in the manner of `optax.GradientTransformation`.

    Attributes:
      init: `init(params, carry, *, rng_key) -> state`.
      estimate: `estimate(params, state, stream) -> (grads, state, info)`, one segment. With frozen
        params, the gradients of one pass of the stream sum to the estimate of the gradient of
        the whole sequence.
    """

    init: Callable[..., EstimatorState]
    estimate: Callable[..., tuple[Any, EstimatorState, EstimatorInfo]]
