"""The GRU as a `Recurrence`: its forward and backward pass, written by hand.

    r, z = σ(x W + b + h U)_{r, z}
    a = h U_n + b'_n,    n = tanh(x W_n + b_n + r a),    h' = (1 − z) n + z h,    y = h'

The residuals of a step are r, z, n, a and h': 5 floats per unit and row. The h that entered a step
is the h' of the step before it. In the backward pass, with δ the cotangent of h',

    δ_r, δ_z, δ_n, δ_a = D δ         N  = (1 − z) (1 − n²)
                                     D  = (N a r (1 − r),  (h − n) z (1 − z),  N,  N r)
    δ = z δ + (δ_r, δ_z, δ_a) Uᵀ

D does not depend on the cotangents, so it is computed for many steps at once. The loop over steps
is left with one product and four multiplications, and stores δ alone. For a chunk at a time, the
gradients of W and b come from (δ_r, δ_z, δ_n), those of U and b'_n from (δ_r, δ_z, δ_a).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp.cells.affine_recurrence import AffineRecurrence
from artbp.cells.base import product
from artbp.unrolls.recurrence import Chunk


class _Residuals(NamedTuple):
    reset: jax.Array
    update: jax.Array
    candidate: jax.Array
    from_hidden: jax.Array  # a
    new_hidden: jax.Array


class _Local(NamedTuple):
    reset: jax.Array  # ∂h'/∂z_r, and so on
    update: jax.Array
    candidate: jax.Array
    from_hidden: jax.Array  # ∂h'/∂a
    decay: jax.Array  # ∂h'/∂h at fixed gates and candidate
    hidden: jax.Array  # that entered the step


class GRURecurrence(AffineRecurrence):
    """The `Recurrence` of the GRU; for its methods see there. A delta is the cotangent of h'."""

    _names = ("input", "recurrent", "bias", "candidate_bias")

    def step(self, carry: jax.Array, u: Any) -> tuple[jax.Array, jax.Array, _Residuals]:
        reset_x, update_x, candidate_x = jnp.split(self._projected(u), 3, axis=-1)
        from_hidden = product(carry, self._params["recurrent"])
        reset_h, update_h, a = jnp.split(from_hidden, 3, axis=-1)
        a = a + self._params["candidate_bias"][None, :].astype(a.dtype)
        r, z = jax.nn.sigmoid(reset_x + reset_h), jax.nn.sigmoid(update_x + update_h)
        # Without barriers, XLA computes these once for every result that they enter.
        r, z, a = lax.optimization_barrier((r, z, a))
        n = lax.optimization_barrier(jnp.tanh(candidate_x + r * a))
        new_hidden = ((1 - z) * n + z * carry.astype(z.dtype)).astype(carry.dtype)
        new_hidden = lax.optimization_barrier(new_hidden)
        r, z, n, a = (leaf.astype(self._stored) for leaf in (r, z, n, a))
        return new_hidden, new_hidden, _Residuals(r, z, n, a, new_hidden)

    def residuals_like(self, carry: jax.Array) -> _Residuals:
        gate = carry.astype(self._stored)
        return _Residuals(gate, gate, gate, gate, carry)

    def linearize(self, chunk: Chunk) -> tuple[jax.Array, _Local]:
        ys = chunk.residuals.new_hidden
        entered = self._entered(chunk, ys)
        r, z, n, a, _ = (leaf.astype(self._wide) for leaf in chunk.residuals)
        candidate = (1 - z) * (1 - n * n)
        local = _Local(
            reset=candidate * a * r * (1 - r),
            update=(entered.astype(self._wide) - n) * z * (1 - z),
            candidate=candidate,
            from_hidden=candidate * r,
            decay=z,
            hidden=entered,
        )
        return ys, lax.optimization_barrier(local)

    def pull_back(
        self, local: _Local, cotangent: jax.Array, y_cotangent: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        delta = cotangent.astype(self._wide) + y_cotangent.astype(self._wide)
        delta = lax.optimization_barrier(delta)
        reset, update, _, from_hidden = self._parts(local, delta)
        parts = [reset, update, from_hidden]
        entering = local.decay * delta + self._back(parts, jnp.concatenate(parts, axis=-1))
        return delta, entering.astype(cotangent.dtype)

    def accumulate(self, sums: Any, local: _Local, xs: Any, deltas: jax.Array) -> Any:
        from_hidden = self._parts(local, deltas)[-1]
        return {
            **super().accumulate(sums, local, xs, deltas),
            "candidate_bias": sums["candidate_bias"] + self._summed(from_hidden),
        }

    def _sides(self, local: _Local, deltas: jax.Array) -> tuple[jax.Array, jax.Array]:
        reset, update, candidate, from_hidden = self._parts(local, deltas)
        of_hidden = jnp.concatenate([reset, update, from_hidden], axis=-1)
        return of_hidden, jnp.concatenate([reset, update, candidate], axis=-1)

    def _parts(self, local: _Local, delta: jax.Array) -> list[jax.Array]:
        """δ_r, δ_z, δ_n, δ_a."""
        factors = (local.reset, local.update, local.candidate, local.from_hidden)
        return [(factor * delta).astype(self._stored) for factor in factors]
