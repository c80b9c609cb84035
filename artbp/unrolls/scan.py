"""`jax.lax.scan` with a gate on the cotangent of the carry, for code that uses `jax.lax.scan`."""

from collections.abc import Callable
from typing import Any

import jax

from artbp._checks import check_function
from artbp.unrolls.arguments import as_carry, as_gates, check_rows
from artbp.unrolls.gate import gate


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    *,
    gates: jax.Array | None = None,
) -> tuple[Any, Any]:
    """Runs `jax.lax.scan` with gates on the gradient that flows back through the carry.

    What it means::

        for t in range(T):                      # from T − 1 down to 0 with reverse=True
            carry, ys[t] = f(carry, xs[t])
            carry = gate(carry, gates[t])       # value unchanged, cotangent times gates[t]

    Without gates, this is `jax.lax.scan`. `artbp.unroll` does the same for a cell whose parameters
    are an argument, and takes resets and lengths too. Here, `f` closes over the parameters or has
    them in the carry. Gates multiply the cotangent of every float leaf of the carry, so parameters
    belong in the closure: the gradient with respect to it is not gated. As in `jax.lax.scan`, it is
    summed over the steps in the dtype of the parameters. In bfloat16 this loses most of a long
    sum; `artbp.unroll` sums in float32.

    Args:
      f, init, xs, length, reverse, unroll: as for `jax.lax.scan`.
      gates: float `[T]`, or `[T, B]` with every float leaf of the carry `[B, ...]`. Gate t belongs
        to xs[t], in both directions: it multiplies the cotangent that flows back into the carry
        that `f` returns at xs[t]. The gate of the step that runs last multiplies the caller's
        cotangent on the returned carry. Integer and key leaves pass through. A law of
        `artbp.truncation` draws gates with `sample_gates`.

    Returns:
      (carry after the last step, ys `[T, ...]`).

    Raises:
      ValueError: gates are not `[T]` or `[T, B]`, or the arrays disagree about T or B.
    """
    gates = as_gates(gates)
    if gates is None:
        return jax.lax.scan(f, init, xs, length, reverse, unroll)
    check_function(f=f)
    if not gates.ndim:
        raise ValueError("gates is a scalar; expected an array of shape [T] or [T, B].")
    check_rows(as_carry(init), xs, gates)

    def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
        x, gate_t = inputs
        carry, y = f(carry, x)
        return gate(carry, gate_t), y

    return jax.lax.scan(step, init, (xs, gates), length, reverse, unroll)
