"""The interface of a recurrence: a cell at given parameters, split for the kernels.

Backpropagation through T steps needs T small products one after another, inside the loops over
steps. The rest can be computed for many steps at once: the products with the inputs before the
forward loop, the local derivatives between the two loops, the gradient of the weights after the
backward loop. A `Recurrence` has one method for each of these parts. The recurrences of
`artbp.cells` are written by hand; that of any other cell is derived (`autodiff_recurrence`).
"""

from typing import Any, NamedTuple, Protocol

import jax

# Steps that are linearised, read out and summed up together: enough for large products, and few
# enough that the result of one of these operations is still in the cache when the next one reads
# it.
CHUNK = 8


class Chunk(NamedTuple):
    """A few consecutive steps [C, ...] whose forward pass is done.

    Attributes:
      entering: the carry that enters the first of them, before its reset.
      residuals: of each step, from `Recurrence.step`.
      xs: their inputs.
      resets: bool `[C]` or `[C, B]`, or None.
      initial_carry: what enters at resets.
    """

    entering: Any
    residuals: Any
    xs: Any
    resets: jax.Array | None
    initial_carry: Any


class Recurrence(Protocol):
    """A cell at given parameters, split for a forward and a backward pass.

    For T steps, in the order in which the kernels call::

        us = project(xs)                                  # many steps at once
        for t: s, ys[t], residuals[t] = step(s, us[t])         # one at a time
        ys, local = linearize(chunk)                      # many steps at once
        for t backward:                                   # one at a time
            deltas[t], ct = pull_back(local[t], ct, ∂L/∂ys[t])
        sums = accumulate(sums, local, xs, deltas)        # many steps at once

    The kernels handle resets, gates, masks and lengths: the carry that `step` is given has already
    been reset, and `ct` has already been gated.
    """

    def project(self, xs: Any) -> Any:
        """Computes the second argument of `step`, [C, ...], from the inputs [C, ...]."""
        ...

    def step(self, carry: Any, u: Any) -> tuple[Any, Any, Any]:
        """(carry, y, residuals of the step) from the carry and one of `project`'s outputs."""
        ...

    def residuals_like(self, carry: Any) -> Any:
        """Arrays like the residuals of a step, for a carry like this; the inputs play no part."""
        ...

    def linearize(self, chunk: Chunk) -> tuple[Any, Any]:
        """(ys [C, ...], local derivatives: a tree of arrays [C, ...])."""
        ...

    def pull_back(self, local: Any, cotangent: Any, y_cotangent: Any) -> tuple[Any, Any]:
        """Pulls the cotangents of a step's new carry and y back through the step.

        Args:
          local: one step of the local derivatives.
          cotangent, y_cotangent: like the differentiable leaves of the carry and y, None elsewhere.

        Returns:
          (delta, for `accumulate`; the cotangent of the carry that entered the step).
        """
        ...

    def zero_sums(self) -> Any:
        """Zeros to sum the gradient of the parameters in, float32 or wider."""
        ...

    def accumulate(self, sums: Any, local: Any, xs: Any, deltas: Any) -> Any:
        """`sums` and the gradient of these steps. A step with delta 0 contributes nothing."""
        ...

    def gradient(self, sums: Any) -> Any:
        """The gradient like the parameters, from the sums."""
        ...

    def input_gradient(self, local: Any, xs: Any, deltas: Any) -> Any:
        """The gradient of the differentiable leaves of the inputs, None elsewhere."""
        ...
