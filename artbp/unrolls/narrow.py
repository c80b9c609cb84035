"""Gradients of many steps at once, where a program computes with floats narrower than float32.

Steps that are differentiated together share the params. What they and their rows add to the
gradient of a param, XLA may sum in the dtype of the program. In bfloat16 such a sum stops to grow
after some hundred terms. Here it is summed over the steps in float32, in one of two ways:

- Each step gets its own copy of the param. Matrices have none, as the copies would take too much
  memory; their gradient is a product, which XLA sums in float32.
- A matrix that is read by row, such as an embedding, has a gradient that is no product. Steps of a
  program with such a read are then differentiated one after another, as `jax.lax.scan` does.
"""

import math
import re
from collections.abc import Callable
from typing import Any, Literal

import jax
from jax import lax

from artbp import _tree

# How a program prints narrow floats, and a sum of what has been read by row.
_NARROW = re.compile(r"\b(bf16|f16|f8\w+)\[")
_SCATTERS = re.compile(r":(bf16|f16|f8\w+)\[[\d,]*\] = scatter-add")

Summation = Literal["shared", "copies", "one by one"]


def summation(function: Callable[..., Any], params: Any, *of_step: Any) -> Summation:
    """How the gradient of `function(params, *of_step)` by params is to be summed over steps.

    "shared" where nothing is narrower than float32. Arrays may be given by shape and dtype.
    """

    def floats(params: Any, *of_step: Any) -> list[Any]:
        leaves = jax.tree.leaves(function(params, *of_step))
        return [leaf for leaf in leaves if hasattr(leaf, "dtype") and _tree.is_inexact(leaf)]

    def gradient(params: Any, *of_step: Any) -> Any:
        own, others = _tree.partition(params)
        values, pullback = jax.vjp(lambda own: floats(_tree.combine(own, others), *of_step), own)
        return pullback(values)  # the values do not matter, only what is computed

    if not _NARROW.search(str(jax.make_jaxpr(floats)(params, *of_step))):
        return "shared"
    scatters = _SCATTERS.search(str(jax.make_jaxpr(gradient)(params, *of_step)))
    return "one by one" if scatters else "copies"


def for_steps(how: Summation, function: Callable[..., Any], params: Any, *of_steps: Any) -> Any:
    """`function(params, *of_step)` for every step, to be differentiated by params.

    Args:
      how: see `summation`.
      of_steps: arrays `[C, ...]`, at least one.
    """
    if how == "one by one":
        own, others = _tree.partition(params)
        wide = _tree.widened(own)

        def step(of_step: Any) -> Any:
            return function(_tree.combine(_tree.astype(wide, own), others), *of_step)

        return lax.map(step, of_steps)
    copies, shared = None, params
    if how == "copies":
        copies, shared = _copies(params, of_steps)

    def one(copy: Any, *of_step: Any) -> Any:
        return function(_tree.combine(copy, shared), *of_step)

    return jax.vmap(one)(copies, *of_steps)


def _copies(params: Any, of_steps: Any) -> tuple[Any, Any]:
    """(a copy for each step `[C, ...]`; what the steps share), each with None in the gaps.

    Copies are made of vectors and scalars, and of other leaves that are no larger than the arrays
    of a step together.
    """
    arrays = jax.tree.leaves(of_steps)
    largest = sum(math.prod(leaf.shape[1:]) for leaf in arrays)

    def copied(leaf: jax.Array) -> jax.Array | None:
        if not _tree.is_inexact(leaf) or (leaf.ndim > 1 and leaf.size > largest):
            return None
        # Transposed, this is a sum in float32, whatever the dtype of the leaf.
        wide = leaf.astype(_tree.at_least_float32(leaf.dtype))
        return _tree.repeat(wide, arrays[0].shape[0]).astype(leaf.dtype)

    leaves, treedef = jax.tree.flatten(params)
    copies = [copied(leaf) for leaf in leaves]
    shared = [leaf if copy is None else None for leaf, copy in zip(leaves, copies, strict=True)]
    return treedef.unflatten(copies), treedef.unflatten(shared)
