"""Functions without hidden inputs: what a user's function closes over, made an argument."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun


def hoist(function: Callable[..., Any], *examples: Any) -> tuple[Callable[..., Any], list[Any]]:
    """Splits a function into a pure function and the arrays that it closes over.

        pure, constants = hoist(function, *examples)
        pure(constants, *examples) == function(*examples)

    A cell may close over a traced array, for instance the hyperparameter of a sweep under
    `jax.vmap`. A custom batching rule sees arguments only, so such arrays have to become some.

    Args:
      function: traced once, at the shapes and dtypes of `examples`.
    """
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*examples)
    treedef = jax.tree.structure(shapes)

    def pure(constants: list[Any], *arguments: Any) -> Any:
        closed = ClosedJaxpr(jaxpr.jaxpr, constants)
        return treedef.unflatten(jaxpr_as_fun(closed)(*jax.tree.leaves(arguments)))

    return pure, jaxpr.consts


def hoist_cell(
    cell: Callable[..., Any], params: Any, carry: Any, x: Any
) -> tuple[Callable[[list[Any]], Callable[..., Any]], list[Any]]:
    """As `hoist`, for a cell: (a function from the constants to the cell, the constants).

    A cell that brings its own recurrence stays what it is, so it must not close over traced arrays;
    a method `hoist(params)`, which returns the same pair, says which ones can be split off.

    Raises:
      ValueError: it closes over others.
    """
    if not hasattr(cell, "recurrence"):
        pure, constants = hoist(cell, params, carry, x)
        return functools.partial(functools.partial, pure), constants
    cell_of, constants = lambda _: cell, []
    if hasattr(cell, "hoist"):
        cell_of, constants = cell.hoist(params)
    known = {id(constant) for constant in constants}
    for constant in hoist(cell_of(constants), params, carry, x)[1]:
        if isinstance(constant, jax.core.Tracer) and id(constant) not in known:
            raise ValueError(
                "The cell brings its own recurrence and closes over a traced array of type "
                f"{constant.aval}. Hand it to the cell in params, or wrap the cell in a function, "
                "which hides the recurrence."
            )
    return cell_of, constants
