"""Functions without hidden inputs: what a user's function closes over, made an argument."""

from __future__ import annotations

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
