"""Sums over steps and rows as plain matrix products.

The gradient of a weight matrix over many steps, as `jax.vmap` and `jax.vjp` state it, is a product
of arrays [C, B, M] and [C, B, N] summed over two axes, steps and rows. XLA on a CPU copies both
into another order first, and multiplies more slowly. With the two axes seen as one, which moves
nothing in memory, it is an ordinary product of matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun, primitives

from artbp import _tree


def merge_contracted_axes(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, in which leading axes that a product sums over are merged into one."""

    def merged(*arguments: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        outputs = _evaluate(closed, jax.tree.leaves(arguments))
        return jax.tree.structure(shapes).unflatten(outputs)

    return merged


def _evaluate(closed: ClosedJaxpr, arguments: list[Any]) -> list[Any]:
    jaxpr = closed.jaxpr
    values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        if equation.primitive is primitives.dot_general_p:
            outputs = [_product(*map(read, equation.invars), **equation.params)]
        else:  # as a program of its own, so that JAX runs it and whatever is inside
            names = [atom for atom in equation.invars if not isinstance(atom, Literal)]
            alone = jaxpr.replace(
                constvars=[], invars=names, outvars=equation.outvars, eqns=[equation]
            )
            outputs = jaxpr_as_fun(ClosedJaxpr(alone, []))(*map(read, names))
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _product(left: jax.Array, right: jax.Array, **params: Any) -> jax.Array:
    """`lax.dot_general`; its first axes, where these are what it sums over, as one."""
    (left_axes, right_axes), batch_axes = params["dimension_numbers"]
    leading = tuple(range(len(left_axes)))
    is_sum_over_leading = left_axes == right_axes == leading and batch_axes == ((), ())
    if is_sum_over_leading and len(leading) > 1 and not _tree.is_sharded((left, right)):
        left, right = (jnp.reshape(x, (-1, *x.shape[len(leading) :])) for x in (left, right))
        params["dimension_numbers"] = (((0,), (0,)), batch_axes)
    return primitives.dot_general_p.bind(left, right, **params)
