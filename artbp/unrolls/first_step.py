"""Checks of cell and loss function on one step of a stream: types, rows, params without a use.

JAX keeps the trace of a function by its arguments' shapes, so these checks share one trace of the
cell and one of the loss function.
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax

from artbp import _tree
from artbp.unrolls.checks import Cell, check_cell
from artbp.unrolls.readout import LossFn, split_extra


def check_step(cell: Cell, loss_fn: LossFn, params: Any, carry: Any, x: Any, target: Any) -> Any:
    """Checks by abstract evaluation that cell, loss function and data of one step fit together.

    Args:
      cell, loss_fn, params, carry, x, target: as one step would call them; arrays or their shapes.

    Returns:
      The shapes and dtypes of y, as a tree of `jax.ShapeDtypeStruct`.

    Raises:
      TypeError, ValueError: as `checks.check_cell`.
      ValueError: there is not one loss for each row; x or target would be broadcast over the rows.
    """

    def losses_of(carry: Any, x: Any, target: Any) -> Any:
        return split_extra(loss_fn(params, cell(params, carry, x)[1], target))[0]

    y = check_cell(cell, params, carry, x)
    losses = split_extra(jax.eval_shape(loss_fn, params, y, target))[0]
    if getattr(losses, "ndim", 0) != 1:
        return y  # no batch, or what `readout.loss_and_count` refuses
    (num_rows,), rows_of_y = losses.shape, _rows(y)
    floats = jax.tree.leaves(_tree.partition(carry)[0])
    carry_has_rows = bool(floats) and all(leaf.shape[:1] == losses.shape for leaf in floats)
    y_has_rows = not rows_of_y or num_rows in rows_of_y
    of_step = carry, x, target
    has_rows = y_has_rows or carry_has_rows
    # If y has no axis of so many rows, the losses got theirs by a broadcast.
    may_be_last = any(num_rows in leaf.shape for leaf in jax.tree.leaves(y))
    if not has_rows and not (may_be_last and _rows_are_last(num_rows, losses_of, of_step)):
        raise ValueError(
            f"loss_fn returned {num_rows} losses a step, but y has {sorted(rows_of_y)} rows; "
            "expected one loss for each row, [B]. Give targets as many rows as y; sum or average "
            "over the other axes only."
        )
    if y_has_rows:
        _check_broadcast("targets", target, num_rows, _rows(target) & {1})
    if carry_has_rows:
        _check_broadcast("xs", x, num_rows, _rows(x))
    return y


def _rows_are_last(num_rows: int, losses: Callable[..., Any], of_step: Any) -> bool:
    """Whether the arrays of a step have their rows on the last axis, and features on the first.

    It is tried: rows can be doubled and features cannot, because the params fix their number. So a
    sum over the features of `[H, B]` is told from one over the rows of `[B, H]`.

    Args:
      losses: `losses(carry, x, target)`, of one step.
      of_step: (carry, x, target).
    """

    def with_twice(axis: int) -> Any:
        """The shape of the losses; None where cell or loss function cannot run."""

        def doubled(leaf: Any) -> Any:
            shape = list(leaf.shape)
            if shape and (axis == 0 or shape[axis] == num_rows):
                shape[axis] *= 2
            return jax.ShapeDtypeStruct(shape, leaf.dtype)

        try:
            return jax.eval_shape(losses, *jax.tree.map(doubled, of_step)).shape
        except Exception:  # whatever a user's function raises for other shapes
            return None

    return with_twice(-1) == (2 * num_rows,) and with_twice(0) is None


def _check_broadcast(name: str, tree: Any, num_rows: int, wrong: set[int]) -> None:
    """Raises ValueError if no array of one step has the rows, and one has a wrong number of them.

    So an array that all rows share passes beside one that has rows. Alone, only that of targets
    passes, such as the weights of classes `[T, C]`, and none of 1 row, which would be broadcast.

    Args:
      wrong: the numbers of rows, of those in the tree, that are an error then.
    """
    if num_rows == 1 or num_rows in _rows(tree) or not wrong:
        return
    shapes = [leaf.shape for leaf in jax.tree.leaves(tree)]
    raise ValueError(
        f"{name} has the shapes {shapes} at one step, but carry and losses have {num_rows} rows; "
        f"expected arrays [T, B, ...] with B = {num_rows}, or [T] where all rows share a number. "
        "If all rows share an array, repeat it: jnp.broadcast_to(array[:, None], "
        f"(T, {num_rows}, ...))."
    )


def _rows(tree: Any) -> set[int]:
    """The sizes of the first axes at one step, without those of raw random keys."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim and not _tree.is_raw_key(leaf)]
    return {leaf.shape[0] for leaf in leaves}


def warn_of_unused_params(
    cell: Cell,
    loss_fn: LossFn,
    params: Any,
    carry: Any,
    x: Any,
    target: Any,
    critic: Callable[[Any, Any], Any] | None = None,
) -> None:
    """Warns of leaves of `params` that are used neither by the cell nor by the loss function.

    Their gradient is 0, which nobody would see. A function that calls `jax.jit` inside uses all
    arguments of that call as far as is seen here.

    Args:
      cell, loss_fn, params, carry, x, target: as one step would call them.
      critic: `critic(params, carry)`, which may use others; see `artbp.unbiased_tbptt`.
    """
    y = jax.eval_shape(cell, params, carry, x)[1]
    by_cell = _uses_params(cell, params, carry, x)
    by_loss = _uses_params(loss_fn, params, y, target)
    by_critic = [False] * len(by_cell)
    if critic is not None:
        by_critic = _uses_params(critic, params, carry)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    unused = [
        f"params{jax.tree_util.keystr(path)}"
        for path, *used in zip(paths, by_cell, by_loss, by_critic, strict=True)
        if not any(used)
    ]
    if unused:
        warnings.warn(
            f"{', '.join(unused)}: used neither by the cell nor by loss_fn, so the gradient is 0. "
            "If the first carry is made from it, use artbp.learned_carry. If it belongs to an "
            "encoder of the inputs, call the encoder in the cell.",
            stacklevel=2,
        )


def _uses_params(function: Any, params: Any, *rest: Any) -> list[bool]:
    """Whether a function uses each leaf of its first argument."""
    jaxpr = jax.make_jaxpr(function)(params, *rest).jaxpr
    used = {id(atom) for equation in jaxpr.eqns for atom in equation.invars}
    used |= {id(atom) for atom in jaxpr.outvars}
    return [id(variable) in used for variable in jaxpr.invars[: len(jax.tree.leaves(params))]]
