"""The recurrence of any cell, derived by automatic differentiation.

The forward pass keeps the carries that enter the steps, nothing else. The backward pass linearises
all steps of a chunk together, by `vmap`, in large products; its loop over steps then only applies
the transposed linear map of each. The gradient of the parameters is one batched VJP per chunk, so
weight gradients are not added up step by step (but see `narrow`).

Work, in matrix products: 1 forward, 1 to linearise, 1 backward, 1 for the weights; the second and
the fourth are large ones. Memory: one carry a step.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from artbp import _tree
from artbp._draws import vmap_changes_draws
from artbp.unrolls.checks import Cell
from artbp.unrolls.narrow import Summation, for_steps, has_narrow_floats, summation
from artbp.unrolls.recurrence import Chunk, Recurrence


def recurrence_of(cell: Cell, params: Any, carry: Any, x: Any) -> Recurrence:
    """The recurrence written for the cell, or one by automatic differentiation.

    Args:
      cell: a function; it may have a method `recurrence(params)`, which returns its recurrence, or
        None if it has none.
      params: at which it is taken.
      carry, x: arrays like those of a step.
    """
    recurrence = hand_written(cell, params)
    return AutodiffRecurrence(cell, params, carry, x) if recurrence is None else recurrence


def residuals_like(cell: Cell, params: Any, carry: Any) -> Any:
    """Arrays like the residuals of a step, to make buffers of; the cell is not traced."""
    recurrence = hand_written(cell, params)
    return carry if recurrence is None else recurrence.residuals_like(carry)


def hand_written(cell: Cell, params: Any) -> Recurrence | None:
    """The recurrence written for the cell at these params; None if there is none."""
    return cell.recurrence(params) if hasattr(cell, "recurrence") else None


class AutodiffRecurrence:
    """A `Recurrence` for `cell(params, carry, x) -> (carry, y)`; for its methods see there.

    The local derivatives of a step are its pullback; a delta is the pair of cotangents that went
    into it.
    """

    def __init__(self, cell: Cell, params: Any, carry: Any, x: Any):
        """Traces the cell; carry and x are examples, of which the shapes and dtypes matter."""
        self._cell = cell
        self._params = params
        closed, shapes = jax.make_jaxpr(self._step_and_pullback, return_shape=True)(carry, x)
        self._num_ys = len(jax.tree.leaves(shapes[0]))
        self._y_treedef, self._pullback_treedef = map(jax.tree.structure, shapes)
        self._linearize = jaxpr_as_fun(closed)
        self._batches = not vmap_changes_draws(closed)
        self._summation: Summation = "shared" if self._batches else "one by one"
        if self._batches and has_narrow_floats(closed):
            self._summation = summation(cell, params, carry, x)
        # What the pullbacks of all steps share, such as the weights, is taken out of them here.
        self._varies = _outputs_that_vary(closed)[self._num_ys :]
        residuals = self._linearize(*jax.tree.leaves((carry, x)))[self._num_ys :]
        self._shared = [
            None if varies else r for r, varies in zip(residuals, self._varies, strict=True)
        ]

    def project(self, xs: Any) -> Any:
        return xs

    def step(self, carry: Any, u: Any) -> tuple[Any, Any, Any]:
        new_carry, y = self._cell(self._params, carry, u)
        return new_carry, y, carry

    def residuals_like(self, carry: Any) -> Any:
        return carry

    def linearize(self, chunk: Chunk) -> tuple[Any, Any]:
        def one(carry: Any, x: Any) -> tuple[list[Any], list[Any]]:
            outputs = self._linearize(*jax.tree.leaves((carry, x)))
            residuals = zip(outputs[self._num_ys :], self._varies, strict=True)
            return outputs[: self._num_ys], [r for r, varies in residuals if varies]

        ys, residuals = self._for_steps(one, chunk.residuals, chunk.xs)
        return self._y_treedef.unflatten(ys), (chunk.residuals, residuals)

    def pull_back(self, local: Any, cotangent: Any, y_cotangent: Any) -> tuple[Any, Any]:
        own = iter(local[1])
        residuals = [
            next(own) if varies else shared
            for varies, shared in zip(self._varies, self._shared, strict=True)
        ]
        pullback = self._pullback_treedef.unflatten(residuals)
        (entering,) = pullback((cotangent, y_cotangent))
        return (cotangent, y_cotangent), entering

    def zero_sums(self) -> Any:
        return _tree.zero_sums(self._params)

    def accumulate(self, sums: Any, local: Any, xs: Any, deltas: Any) -> Any:
        carries, _ = local

        def steps(params: Any) -> Any:
            new_carries, ys = for_steps(self._summation, self._cell, params, carries, xs)
            return _tree.partition(new_carries)[0], _tree.partition(ys)[0]

        (grads,) = jax.vjp(steps, self._params)[1](deltas)
        return _tree.accumulate(sums, grads)

    def gradient(self, sums: Any) -> Any:
        return sums

    def input_gradient(self, local: Any, xs: Any, deltas: Any) -> Any:
        carries, _ = local
        float_xs, other_xs = _tree.partition(xs)

        def steps(float_xs: Any) -> Any:
            cell = functools.partial(self._cell, self._params)
            new_carries, ys = self._for_steps(cell, carries, _tree.combine(float_xs, other_xs))
            return _tree.partition(new_carries)[0], _tree.partition(ys)[0]

        return jax.vjp(steps, float_xs)[1](deltas)[0]

    def _for_steps(self, function: Callable[..., Any], carries: Any, xs: Any) -> Any:
        """`function(carry, x)` of every step."""
        if self._batches:
            return jax.vmap(function)(carries, xs)
        return lax.map(lambda step: function(*step), (carries, xs))

    def _step_and_pullback(self, carry: Any, x: Any) -> tuple[Any, Any]:
        """(y, the pullback with respect to the carry)."""
        float_carry, rest = _tree.partition(carry)

        def differentiable(float_carry: Any) -> tuple[Any, Any]:
            new_carry, y = self._cell(self._params, _tree.combine(float_carry, rest), x)
            float_y, other_y = _tree.partition(y)
            return (_tree.partition(new_carry)[0], float_y), other_y

        (_, float_y), pullback, other_y = jax.vjp(differentiable, float_carry, has_aux=True)
        return _tree.combine(float_y, other_y), pullback


def _outputs_that_vary(closed: ClosedJaxpr) -> list[bool]:
    """Which outputs of a program depend on its inputs; an inner program counts as one operation."""
    varying = set(closed.jaxpr.invars)

    def varies(atom: Any) -> bool:
        return not hasattr(atom, "val") and atom in varying  # literals have a value

    for equation in closed.jaxpr.eqns:
        if any(varies(atom) for atom in equation.invars):
            varying.update(equation.outvars)
    return [varies(atom) for atom in closed.jaxpr.outvars]
