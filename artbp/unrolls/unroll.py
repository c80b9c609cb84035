"""The gated unroll: `jax.lax.scan` over a cell with a factor on the carry's cotangent.

It stores the residuals of all T steps, so it is exact and simple, and its memory grows with T, or
like √T with `checkpoint=True`. The segment kernels give the same gradients in the memory of one
segment, and are tested against it.
"""

from typing import Any

import jax

from artbp import _tree
from artbp.unrolls.arguments import Arguments, check_arguments, first_step
from artbp.unrolls.checkpointing import resolve_checkpoint, scan_in_blocks
from artbp.unrolls.checks import Cell
from artbp.unrolls.gate import gate


def unroll(
    cell: Cell,
    params: Any,
    carry: Any,
    xs: Any,
    *,
    gates: jax.Array | None = None,
    resets: jax.Array | None = None,
    initial_carry: Any = None,
    lengths: jax.Array | None = None,
    reverse: bool = False,
    unroll: int = 1,
    checkpoint: bool | int | None = None,
) -> tuple[Any, Any]:
    """Runs `cell` along `xs`, with gates on the gradient that flows back through the carry.

    What it means, for one row::

        for t in range(T):                    # from T − 1 down to 0 with reverse=True
            if resets[t]: carry = initial_carry
            carry, ys[t] = cell(params, carry, xs[t])
            carry = gate(carry, gates[t])     # value unchanged, cotangent times gates[t]

    so that with δ_t the cotangent of the carry after step t and s_t its value,

        δ_t = (∂L/∂s_t through y) + gates[t] · (∂F_{t+1}/∂s_t)ᵀ δ_{t+1}.

    All gates 1: backpropagation through time. Gates 0 at every multiple of K: TBPTT. Gates
    (1 − X_t)/(1 − c_t): ARTBP (Tallec & Ollivier, arXiv 1705.08209). `jax.lax.scan` is this
    function without gates, resets and lengths.

    The gradients of `params` and `initial_carry` are summed over the steps in float32 or wider, and
    returned in the dtypes of these arrays. (`jax.lax.scan` sums those of bfloat16 arrays in
    bfloat16. It loses what is below 1/256 of the sum so far.)

    Differentiable in `params`, `carry`, `xs` and `initial_carry`, in forward and reverse mode;
    works under jit, vmap, grad and sharding as `jax.lax.scan` does.

    Args:
      cell: `cell(params, carry, x) -> (carry, y)`.
      params: any pytree, handed to the cell.
      carry: any pytree; integer and key leaves pass through ungated. With row-wise `gates`
        every float leaf is `[B, ...]`, with row-wise `resets` every leaf that they replace, with
        `lengths` every leaf.
      xs: any pytree of arrays `[T, B, ...]` (or `[T, ...]` without a batch), or None for a cell
        without input; then T is the length of `gates` or `resets`.
      gates: float `[T]` or `[T, B]`. gates[t] multiplies the cotangent that flows from step t+1
        back into the carry after step t; gates[T−1] multiplies the caller's cotangent on the
        returned carry. Default: all ones.
      resets: bool `[T]` or `[T, B]`. Where true, the carry that enters step t is
        `initial_carry`, ungated, and nothing flows back to the old carry.
      initial_carry: like `carry`. Default: zeros (key leaves keep their value). None in place of a
        leaf or of a subtree: resets leave this part of the carry as it is, and its gradient flows
        through them.
      lengths: int `[B]`. Row b stops after lengths[b] steps: its carry stays, its later ys are
        zero, its later gates and resets are ignored, and gates[lengths[b]−1, b] acts on its
        returned carry. The values of `xs` beyond a row's length have no influence: there the cell
        is given the row's first carry and input (if it has no step, an input of the longest row).
        Every array of `xs` is then `[T, B, ...]`, or `[T]` when all rows share it.
      reverse: run from step T − 1 down to step 0, as in `jax.lax.scan`. t remains the index into
        all arrays. resets[t] acts on the carry that enters step t, which comes from step t + 1.
        gates[t] acts on the carry that step t returns, which goes to step t − 1; gates[0] acts on
        the returned carry. With `lengths`, row b begins at step lengths[b] − 1. The result is the
        same as if all arrays were flipped in time, each row within its length, and the ys again.
      unroll: steps per loop iteration, as in `jax.lax.scan`; within a block, where there are
        blocks.
      checkpoint: what reverse mode stores. Values and gradients do not depend on it. None or
        False: the residuals of all T steps. An integer k: the sequence is run in blocks of k
        steps, the last one shorter where k does not divide T; only the carries that enter the
        blocks are stored, and the backward pass runs each block again. True: k = ⌈√T⌉.
        Memory: T/k carries and the residuals of k steps in place of those of T, so it grows like
        √T under True. It is least at k = √(T·carry/residuals), sizes per step, which is below √T
        because a step's residuals are larger than its carry. Price: one forward pass more, four
        units of matrix products in place of three. Arrays that are `[T, ...]` by themselves stay
        so: xs, gates, resets, ys, and their cotangents; where k does not divide T, they are
        copied once.

    Returns:
      (carry after the last step, ys `[T, ...]`).

    Raises:
      ValueError: arrays disagree about T or B, the cell changes the type of the carry, or
        `checkpoint` is below 1.
      TypeError: the cell does not return a pair, `resets` is not bool, or `checkpoint` is traced or
        not an integer.
    """
    arguments = Arguments(params, carry, xs, gates, resets, initial_carry, lengths)
    arguments, num_steps = check_arguments(cell, arguments)
    _, carry, _, gates, resets, initial_carry, lengths = arguments
    # In float32 a scan sums the gradient of narrow floats.
    narrow_params, params = params, _tree.widened(params)
    narrow_initial, initial_carry = initial_carry, _tree.widened(initial_carry)
    block_size = resolve_checkpoint(checkpoint, num_steps)

    first = until_end = None
    if lengths is not None and num_steps:
        until_end = lengths - (num_steps - 1) if reverse else lengths
        first = first_step(carry, xs, resets, narrow_initial, lengths, reverse)

    def step(state: Any, inputs: Any) -> tuple[Any, Any]:
        carry, until_end = state
        x, gate_t, reset_t = inputs
        active = None
        if until_end is not None:  # lengths − t, counted: an array of the times would grow with T
            active = until_end > 0
            until_end = until_end + 1 if reverse else until_end - 1
        previous = carry
        if reset_t is not None:
            initial = _narrowed(initial_carry, narrow_initial)
            carry = _tree.replace(reset_t, initial, carry)
        if active is not None:
            carry, x = _tree.select(active, (carry, x), first)
        carry, y = cell(_narrowed(params, narrow_params), carry, x)
        if gate_t is not None:
            carry = gate(carry, gate_t)
        if active is not None:
            carry, y = _tree.select(active, (carry, y), (previous, _tree.zeros_like(y)))
        return (carry, until_end), y

    (carry, _), ys = scan_in_blocks(
        step,
        (carry, until_end),
        (xs, gates, resets),
        num_steps=num_steps,
        block_size=block_size,
        reverse=reverse,
        unroll=unroll,
    )
    return carry, ys


def _narrowed(tree: Any, like: Any) -> Any:
    """The inverse of `_tree.widened`; the values have not changed."""
    return jax.tree.map(
        lambda wide, leaf: wide if wide is leaf else wide.astype(leaf.dtype), tree, like
    )
