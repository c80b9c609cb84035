"""Arrays that a user's functions close over, turned into arguments.

A cell may close over a traced array, for instance the hyperparameter of a sweep under `jax.vmap`.
The batching rule of the segment kernels sees arguments only, so such arrays have to become some.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from artbp.unrolls.first_step import check_step
from artbp.unrolls.functions import Functions


def hoist_functions(
    functions: Functions, params: Any, carry: Any, x: Any, target: Any
) -> tuple[Callable[[Any], Functions], Any]:
    """(a function from the constants to the functions without closures, the constants).

    Raises:
      TypeError, ValueError: see `first_step.check_step` and `hoist_cell`.
    """
    y = check_step(functions.cell, functions.loss_fn, params, carry, x, target)
    cell_of, cell_constants = hoist_cell(functions.cell, params, carry, x)
    loss_fn, loss_constants = hoist(functions.loss_fn, params, y, target)
    critic, critic_constants = None, []
    if functions.critic is not None:
        critic, critic_constants = hoist(functions.critic, params, carry)
    gates_of, gate_constants = None, []
    if functions.compensation is not None:
        gates_of, gate_constants = hoist_gates(functions.compensation)

    def functions_of(constants: Any) -> Functions:
        cell_constants, loss_constants, gate_constants, critic_constants = constants
        loss_of_constants: Any = functools.partial(loss_fn, loss_constants)
        loss_of_constants.of_any_shape = functions.loss_fn  # for `replace_uncounted`
        own_critic = critic and functools.partial(critic, critic_constants)
        functions_now = functions._replace(cell=cell_of(cell_constants), critic=own_critic)
        compensation = gates_of and gates_of(gate_constants)
        return functions_now._replace(loss_fn=loss_of_constants, compensation=compensation)

    return functions_of, (cell_constants, loss_constants, gate_constants, critic_constants)


def hoist(function: Callable[..., Any], *examples: Any) -> tuple[Callable[..., Any], list[Any]]:
    """Splits a function into a pure function and the arrays that it closes over.

        pure, constants = hoist(function, *examples)
        pure(constants, *examples) == function(*examples)

    Args:
      function: traced once, at the shapes and dtypes of `examples`.
    """
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*examples)
    treedef = jax.tree.structure(shapes)

    def pure(constants: list[Any], *arguments: Any) -> Any:
        closed = ClosedJaxpr(jaxpr.jaxpr, constants)
        return treedef.unflatten(jaxpr_as_fun(closed)(*jax.tree.leaves(arguments)))

    return pure, jaxpr.consts


def hoist_gates(
    gate_at: Callable[[Any], Any],
) -> tuple[Callable[[list[Any]], Callable[[Any], Any]], list[Any]]:
    """As `hoist`, for a gate by age: (a function from the constants to it, the constants).

    Unless it closes over traced arrays, such as the hazard of a sweep, it stays as it is: it then
    takes NumPy arrays too, and computes on the host what is known there.
    """
    pure, constants = hoist(gate_at, jnp.ones((), jnp.int32))
    if any(isinstance(constant, jax.core.Tracer) for constant in constants):
        return lambda given: jnp.vectorize(functools.partial(pure, given)), constants
    return lambda _: gate_at, []


def hoist_cell(
    cell: Callable[..., Any], params: Any, carry: Any, x: Any
) -> tuple[Callable[[list[Any]], Callable[..., Any]], list[Any]]:
    """As `hoist`, for a cell: (a function from the constants to the cell, the constants).

    A cell with a hand-written recurrence is not traced into a new function, so it must not close
    over traced arrays, except those that its method `hoist(params)`, which returns the same pair,
    splits off.

    Raises:
      ValueError: it closes over others.
    """
    if not hasattr(cell, "recurrence") or cell.recurrence(params) is None:
        pure, constants = hoist(cell, params, carry, x)
        return lambda constants: functools.partial(pure, constants), constants
    cell_of, constants = lambda _: cell, []
    if hasattr(cell, "hoist"):
        cell_of, constants = cell.hoist(params)
    known = {id(constant) for constant in constants}
    for constant in hoist(cell_of(constants), params, carry, x)[1]:
        if isinstance(constant, jax.core.Tracer) and id(constant) not in known:
            raise ValueError(
                "The cell has a hand-written recurrence and closes over a traced array of type "
                f"{constant.aval}. Hand it to the cell in params, or, if it needs no gradient, in "
                "the carry, as a leaf that the cell returns unchanged. Or wrap the cell in a "
                "function, which hides the recurrence."
            )
    return cell_of, constants
