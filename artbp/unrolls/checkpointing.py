"""A scan that keeps only the states between blocks, and runs each block again in the backward pass.

Sublinear memory by one level of checkpoints (Chen et al., "Training Deep Nets with Sublinear Memory
Cost", arXiv 1604.06174): T/k states and the residuals of k steps in place of T, for one more
forward pass.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def resolve_checkpoint(checkpoint: Any, num_steps: int) -> int | None:
    """The number of steps in a block; None for a single scan that stores every step.

    Raises:
      TypeError: neither a boolean, nor an integer, nor None; or traced.
      ValueError: an integer below 1.
    """
    if checkpoint is None or isinstance(checkpoint, (bool, np.bool_)):
        return max(1, math.isqrt(max(num_steps - 1, 0)) + 1) if checkpoint else None
    expected = "expected True, False, None, or an integer ≥ 1: the number of steps in a block"
    if isinstance(checkpoint, jax.core.Tracer):
        raise TypeError(
            f"checkpoint={checkpoint} is traced; {expected}. It decides the shape of the program: "
            "pass a Python integer, or mark the argument that it comes from as static."
        )
    try:
        block_size = operator.index(checkpoint)
    except TypeError:
        raise TypeError(
            f"checkpoint={checkpoint!r}; {expected}. Pass True for blocks of √T steps."
        ) from None
    if block_size < 1:
        raise ValueError(
            f"checkpoint={block_size}; {expected}. Pass None to store every step, "
            "True for blocks of √T steps."
        )
    return block_size


def scan_in_blocks(
    step: Callable[[Any, Any], tuple[Any, Any]],
    state: Any,
    inputs: Any,
    *,
    num_steps: int,
    block_size: int | None,
    reverse: bool,
    unroll: int,
) -> tuple[Any, Any]:
    """`jax.lax.scan(step, state, inputs)` that stores states before blocks instead of residuals.

    The outer scan goes over blocks of `block_size` steps. The remaining steps, those of the largest
    t, are one shorter block, so the step is never given padding.

    Args:
      step: `step(state, input) -> (state, output)`.
      state: any pytree of arrays.
      inputs: any pytree of arrays `[T, ...]`.
      num_steps: the length T.
      block_size: at least 1; None for a single scan that stores every step.
      reverse: as in `jax.lax.scan`.
      unroll: of the scan within a block.

    Returns:
      (last state, outputs `[T, ...]`).
    """
    scan = functools.partial(jax.lax.scan, step, reverse=reverse, unroll=unroll)
    if block_size is None:
        return scan(state, inputs, length=num_steps)
    num_blocks, remainder = divmod(num_steps, block_size)
    if not num_blocks:
        return _block(scan, state, inputs, num_steps)
    blocks, rest = _split(inputs, num_blocks * block_size)
    blocks = jax.tree.map(lambda x: x.reshape(num_blocks, block_size, *x.shape[1:]), blocks)

    def scan_block(state: Any, inputs: Any) -> tuple[Any, Any]:
        # Inside a loop, XLA cannot merge the second run of the block with the first.
        return _block(scan, state, inputs, block_size, prevent_cse=False)

    last: Any = None
    if reverse and remainder:
        state, last = _block(scan, state, rest, remainder)
    state, outputs = jax.lax.scan(scan_block, state, blocks, length=num_blocks, reverse=reverse)
    outputs = jax.tree.map(lambda y: y.reshape(num_blocks * block_size, *y.shape[2:]), outputs)
    if not reverse and remainder:
        state, last = _block(scan, state, rest, remainder)
    if remainder:
        outputs = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outputs, last)
    return state, outputs


def _block(
    scan: Callable[..., tuple[Any, Any]],
    state: Any,
    inputs: Any,
    num_steps: int,
    *,
    prevent_cse: bool = True,
) -> tuple[Any, Any]:
    """One block: a scan that stores nothing but the state before it."""
    run = functools.partial(scan, length=num_steps)
    return jax.checkpoint(run, prevent_cse=prevent_cse)(state, inputs)


def _split(inputs: Any, at: int) -> tuple[Any, Any]:
    """(the first `at` steps, the others); their cotangents are joined by one concatenation."""
    leaves, treedef = jax.tree.flatten(inputs)
    pairs = [jax.lax.split(leaf, (at, leaf.shape[0] - at)) for leaf in leaves]
    return treedef.unflatten([a for a, _ in pairs]), treedef.unflatten([b for _, b in pairs])
