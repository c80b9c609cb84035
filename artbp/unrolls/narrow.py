"""Gradients of many steps at once, where a program computes with floats narrower than float32.

Steps that are differentiated together share the params. What they and their rows add to the
gradient of a param, XLA may sum in the dtype of the program. In bfloat16 such a sum stops to grow
after some hundred terms. Here it is summed over the steps in float32:

- Each step gets its own copy of small params, such as biases.
- Large matrices are shared. In products, XLA sums their gradient in float32.
- A large matrix may be read by row, as a table of embeddings is. XLA adds the gradients of the rows
  up in bfloat16. The steps of such a program are differentiated one after another, as
  `jax.lax.scan` does.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr

from artbp import _tree

# How a program prints the types of narrow floats.
_NARROW = re.compile(r"\b(bf16|f16|f8\w+)\[")
_READS = ("gather", "dynamic_slice")  # the second reads one row, without a batch
# A vector larger than the arrays of a step is copied up to this share of all params.
_SHARE = 1 / 4

Summation = Literal["shared", "copies", "one by one"]


def has_narrow_floats(program: ClosedJaxpr) -> bool:
    """Whether a program computes with floats narrower than float32 anywhere."""
    return bool(_NARROW.search(str(program)))


def summation(function: Callable[..., Any], params: Any, *of_step: Any) -> Summation:
    """How the gradient of `function(params, *of_step)` by params is to be summed over steps.

    "shared" where nothing is narrower than float32. Arrays may be given by shape and dtype.
    """

    def arrays(params: Any, *of_step: Any) -> list[Any]:
        leaves = jax.tree.leaves(function(params, *of_step))
        return [leaf for leaf in leaves if hasattr(leaf, "dtype")]

    program = jax.make_jaxpr(arrays)(params, *of_step)
    if not has_narrow_floats(program):
        return "shared"
    leaves = jax.tree.leaves(params)
    is_shared = [_tree.is_inexact(x) and not _is_copied(x, params, of_step) for x in leaves]
    if any(leaf.ndim < 2 for leaf, shared in zip(leaves, is_shared, strict=True) if shared):
        return "one by one"  # such as all params in one vector
    shared, step = _Origin({"shared"}), _Origin({"step"})
    origins = [shared if one else step for one in is_shared]
    origins += [step] * (len(program.jaxpr.invars) - len(leaves))
    reads, _ = _reads_by_row(program.jaxpr, origins)
    return "one by one" if reads else "copies"


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


def _is_copied(leaf: Any, params: Any, of_step: Any) -> bool:
    """Whether each step gets its own copy of a leaf of params.

    Copies are as small as the arrays of a step; or they are of a vector such as the bias of a large
    readout, whose matrix is much larger.
    """
    if not _tree.is_inexact(leaf):
        return False
    whole, step = (
        sum(math.prod(one.shape) for one in jax.tree.leaves(tree)) for tree in (params, of_step)
    )
    return leaf.size <= step or (leaf.ndim < 2 and leaf.size <= _SHARE * whole)


def _copies(params: Any, of_steps: Any) -> tuple[Any, Any]:
    """(a copy for each step `[C, ...]`; what the steps share), each with None in the gaps."""
    num_steps = jax.tree.leaves(of_steps)[0].shape[0]
    of_step = jax.eval_shape(lambda: _tree.index(of_steps, 0))

    def copied(leaf: jax.Array) -> jax.Array | None:
        if not _is_copied(leaf, params, of_step):
            return None
        # Transposed, this is a sum in float32, whatever the dtype of the leaf.
        wide = leaf.astype(_tree.at_least_float32(leaf.dtype))
        return _tree.repeat(wide, num_steps).astype(leaf.dtype)

    leaves, treedef = jax.tree.flatten(params)
    copies = [copied(leaf) for leaf in leaves]
    shared = [leaf if copy is None else None for leaf, copy in zip(leaves, copies, strict=True)]
    return treedef.unflatten(copies), treedef.unflatten(shared)


# What an array of a program is computed from: "shared" params, the arrays of a "step", or both.
_Origin = frozenset[str]


def _reads_by_row(program: Jaxpr, origins: Sequence[_Origin]) -> tuple[bool, list[_Origin]]:
    """Whether a step chooses what is read of a narrow shared array; the origins of the results.

    Args:
      origins: of the inputs of the program.
    """
    known = dict(zip(program.invars, origins, strict=True))
    found = False

    def origin(atom: Any) -> _Origin:
        return _Origin() if hasattr(atom, "val") else known.get(atom, _Origin())  # constants

    for equation in program.eqns:
        given = [origin(atom) for atom in equation.invars]
        joint = _Origin().union(*given)
        name = equation.primitive.name
        if name in _READS and given[0] == {"shared"} and "step" in joint:
            found |= _is_narrow(equation.invars[0].aval)
        results = [joint] * len(equation.outvars)
        for inner in _inner_programs(equation.params):
            # What comes before its inputs is of another program, such as the condition of a loop.
            own = ([joint] * len(inner.invars) + given)[-len(inner.invars) :]
            reads, of_inner = _reads_by_row(inner, own if inner.invars else [])
            found |= reads
            if name not in ("scan", "while", "cond") and len(of_inner) == len(results):
                results = of_inner
        known.update(zip(equation.outvars, results, strict=True))
    return found, [origin(atom) for atom in program.outvars]


def _inner_programs(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in params.values():
        for program in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(program, ClosedJaxpr):
                yield program.jaxpr
            elif isinstance(program, Jaxpr):
                yield program


def _is_narrow(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4
