"""What every segment kernel takes and returns."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import Counted, LossFn


class Functions(NamedTuple):
    """The functions of a segment kernel: static under jit.

    Attributes:
      cell: `cell(params, carry, x) -> (carry, y)`.
      loss_fn: `loss_fn(params, y, target) -> losses` of one step, or `(losses, extra)`.
      compensation: `compensation(k) -> gate` of the step of age k (k = 1 is the first step of a
        segment), for a step that is no boundary: 1/(1 − c(k)) for ARTBP. Takes and returns NumPy or
        JAX arrays, whichever it is given. None: gate 1, as in BPTT and truncated BPTT.
      critic: `critic(params, carry) -> like carry`, see `artbp.unbiased_tbptt`; None: no critic.
    """

    cell: Cell
    loss_fn: LossFn
    compensation: Callable[[Any], Any] | None = None
    critic: Callable[[Any, Any], Any] | None = None


class SegmentResult(NamedTuple):
    """What a segment kernel returns.

    Attributes:
      grads: gradient of the summed losses, like params, float32 or wider.
      loss_sum: summed losses, float scalar.
      counted: how many losses were summed (steps times rows, without the masked ones), and the sums
        of what the loss function returns beside them.
      carry: the carry after the segment's last step.
      scratch: the buffers that came in, to be handed to the next segment.
      max_compensation: the largest gate of the segment, float scalar.
      max_weight: the product of its gates, float scalar: the weight of the loss of its last step in
        the gradient through its first step.
    """

    grads: Any
    loss_sum: jax.Array
    counted: Counted
    carry: Any
    scratch: Any
    max_compensation: jax.Array
    max_weight: jax.Array
