"""A first carry that is a function of the parameters, such as a learned initial state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _devices, _tree
from artbp.unrolls.arguments import check_carry_type
from artbp.unrolls.checks import Cell


class LearnedCarry(NamedTuple):
    """The carry of a cell of `learned_carry`.

    Attributes:
      carry: that of the cell inside. At the beginning of a sequence, its values do not matter.
      has_begun: bool, `[B]` or a scalar. False at the beginning of a sequence, so zeros, to which
        resets go, begin one.
    """

    carry: Any
    has_begun: jax.Array


def learned_carry(
    cell: Cell, make_carry: Callable[[Any], Any], params: Any, carry: Any = None
) -> tuple[Cell, LearnedCarry]:
    """Makes a cell whose sequences begin with a carry made from the params.

    Estimators differentiate with respect to `params`, and take a carry as a constant. So a first
    carry that is to be learned is made inside the cell, at the first step and after each reset::

        params = {"cell": ..., "first": jnp.zeros(H)}

        def make_carry(params):
            return jnp.broadcast_to(params["first"], (B, H))

        cell, carry = artbp.learned_carry(cell, make_carry, params)
        estimator = artbp.artbp(cell, loss_fn, artbp.truncation.polynomial(50, 4))
        state = estimator.init(params, carry, rng_key=key)  # without initial_carry

    The gradient that reaches the first carry belongs to the step that it enters, so truncation
    acts on it as on every other: with `artbp.artbp` it is unbiased. `artbp.unroll` and
    `artbp.evaluate` take the new cell and carry too. The carry of the new cell is a
    `LearnedCarry`, which contains the carry of the given cell.

    Args:
      cell: as for the estimators.
      make_carry: make_carry(params) -> the first carry, or None in place of the parts that do not
        depend on the params. It runs at every step, so it should be cheap. With
        `artbp.data_parallel`, it returns all rows, and each device takes its own.
      params: their shapes and dtypes matter.
      carry: a first carry of the cell, needed where `make_carry` returns None for a part.

    Returns:
      (the cell, its first carry). A reset goes back to what `make_carry` returns. The parts that it
      leaves out go to the `initial_carry` of `init`, zeros by default.

    Raises:
      ValueError: `make_carry` returns another type of carry than `carry`, or leaves out a part and
        there is no `carry`.
    """
    made = jax.eval_shape(make_carry, params)
    if carry is None:
        parts = jax.tree.leaves(made, is_leaf=lambda part: part is None)
        if not jax.tree.leaves(made):
            raise ValueError("make_carry(params) returned no array; expected a carry of the cell.")
        if any(part is None for part in parts):
            raise ValueError(
                f"make_carry(params) returned {made}, and no carry was given; expected every part "
                "of a carry of the cell. Pass learned_carry(..., carry=...), a first carry, which "
                "holds the parts that make_carry leaves out."
            )
        carry = jax.tree.map(_tree.zeros, made)
    carry = _tree.as_arrays(carry)
    check_carry_type("make_carry(params) returned", made, carry, "are not learned")
    carry = _tree.combine(jax.tree.map(_tree.zeros, made), carry)
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(made)}
    # Without a batch, leaves [H] get H flags, which are all equal.
    rows = sizes.pop() if len(sizes) == 1 else ()

    def begins_learned(params: Any, state: LearnedCarry, x: Any) -> tuple[LearnedCarry, Any]:
        made = make_carry(params)
        old = _tree.where_given(made, state.carry)
        made = jax.tree.map(_devices.rows_of_device, made, old)
        carry = _tree.replace(~state.has_begun, made, state.carry)
        carry, y = cell(params, carry, x)
        return LearnedCarry(carry, jnp.ones_like(state.has_begun)), y

    return begins_learned, LearnedCarry(carry, jnp.zeros(rows, bool))
