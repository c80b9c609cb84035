"""Splits the gradient of a window's losses by the older window that it goes through.

G_j is the part of the gradient of window n that goes through window n − j, j = 0, …, J, and
R_j = G_j + … + G_J. Everything is computed with the same params: the carry that enters window n − J
comes from `history` more windows, run from a carry of zeros.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import artbp
from experiments.ptb.model import CharacterModel


def through_windows(
    model: CharacterModel, params: Any, xs: jax.Array, targets: jax.Array, older: int
) -> jax.Array:
    """Computes G_0, …, G_J, `[J + 1, P]`, of the summed losses of the last window.

    xs: `[windows, K, B]`, the last window n last; targets: `[K, B]`, of this window. `older`: J.
    """
    history, rest = jnp.split(xs, [len(xs) - older - 1])
    carry = model.initial_carry(params, xs.shape[2])
    carry, _ = lax.scan(lambda carry, x: (_run(model, params, carry, x)[0], None), carry, history)

    def loss(params_of: Any) -> jax.Array:
        """The loss as a function of the params of each window, `[J + 1, ...]`."""
        before, last = (
            jax.tree.map(lambda leaf, part=part: leaf[part], params_of)
            for part in (slice(older), -1)
        )
        entering, _ = lax.scan(
            lambda carry, step: (_run(model, step[0], carry, step[1])[0], None),
            carry,
            (before, rest[:-1]),
        )
        _, ys = _run(model, last, entering, rest[-1])
        return jnp.sum(jax.vmap(partial(model.loss_fn, last))(ys, targets))

    repeated = jax.tree.map(lambda leaf: jnp.stack([leaf] * (older + 1)), params)
    leaves = jax.tree.leaves(jax.grad(loss)(repeated))
    return jnp.concatenate([leaf.reshape(older + 1, -1) for leaf in leaves], axis=1)[::-1]


def remainders_by_row(
    model: CharacterModel, params: Any, xs: jax.Array, targets: jax.Array, older: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes the sizes of R_0, …, R_J, of the batch and of its rows.

    Returns:
      (R_0 of the batch `[P]`, ‖Σ_b R_j^b‖² `[J + 1]`, Σ_b ‖R_j^b‖² `[J + 1]`), with R_j^b the part
      of R_j that belongs to row b.
    """
    of_row = partial(through_windows, model, params, older=older)
    rows = jax.vmap(lambda x, target: of_row(x[..., None], target[..., None]), (2, 1))(xs, targets)
    remainders = jnp.cumsum(rows[:, ::-1], axis=1)[:, ::-1]
    of_batch = jnp.sum(remainders, axis=0)
    shared = jnp.sum(of_batch**2, axis=1)
    return of_batch[0], shared, jnp.sum(remainders**2, axis=(0, 2))


def _run(model: CharacterModel, params: Any, carry: Any, xs: jax.Array) -> tuple[Any, Any]:
    return artbp.fused_unroll(model.cell, params, carry, xs)
