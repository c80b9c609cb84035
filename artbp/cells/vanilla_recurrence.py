"""The linear cell and the vanilla (tanh) cell as `Recurrence`s, written by hand.

    z = x W + h U + b,    h' = φ(z),    y = h'

The residual of a step is h': 1 float per unit and row. The h that entered a step is the h' of the
step before it. In the backward pass, with δh the cotangent of h',

    δz = φ'(z) δh,    δh = δz Uᵀ;    φ' = 1 for the linear cell,  φ'(z) = 1 − h'² for tanh

The gradients of W, U and b are one product each, of all δz of a chunk.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp.cells.affine_recurrence import AffineRecurrence
from artbp.cells.base import product
from artbp.unrolls.recurrence import Chunk


class _Local(NamedTuple):
    slope: jax.Array | None  # φ'(z); None is 1
    hidden: jax.Array  # that entered the step


class LinearRecurrence(AffineRecurrence):
    """The `Recurrence` of the linear cell; for its methods see there."""

    def step(self, carry: jax.Array, u: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        z = self._projected(u) + product(carry, self._params["recurrent"])
        # Without a barrier, XLA computes this once for every result that it enters.
        new_hidden = self._activation(z).astype(self._residual_dtype(carry))
        residuals = lax.optimization_barrier(new_hidden)
        new_hidden = residuals.astype(carry.dtype)
        return new_hidden, new_hidden, residuals

    def residuals_like(self, carry: jax.Array) -> jax.Array:
        return carry.astype(self._residual_dtype(carry))

    def linearize(self, chunk: Chunk) -> tuple[jax.Array, _Local]:
        ys = chunk.residuals.astype(chunk.entering.dtype)
        slope = self._slope(chunk.residuals.astype(self._wide))
        return ys, lax.optimization_barrier(_Local(slope, self._entered(chunk, ys)))

    def pull_back(
        self, local: _Local, cotangent: jax.Array, y_cotangent: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        delta = cotangent.astype(self._wide) + y_cotangent.astype(self._wide)
        delta = delta if local.slope is None else local.slope * delta
        delta = lax.optimization_barrier(delta.astype(self._stored))
        return delta, self._back([delta], delta).astype(cotangent.dtype)

    def _residual_dtype(self, carry: jax.Array) -> Any:
        """The wider of those of carry and weights: h' of a narrow carry is too coarse for φ'."""
        return max(carry.dtype, self._stored, key=lambda dtype: dtype.itemsize)

    def _activation(self, z: jax.Array) -> jax.Array:
        return z

    def _slope(self, hidden: jax.Array) -> jax.Array | None:  # φ'(z), from h' = φ(z)
        return None


class RNNRecurrence(LinearRecurrence):
    """The `Recurrence` of the tanh cell; for its methods see there."""

    def _activation(self, z: jax.Array) -> jax.Array:
        return jnp.tanh(z)

    def _slope(self, hidden: jax.Array) -> jax.Array:
        return 1 - hidden * hidden
