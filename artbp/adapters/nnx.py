"""Modules of flax nnx as cells, and an RNN layer with gates for nnx models."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from artbp.adapters.base import NO_KEY, AdaptedModule, changes_variables, split_key, unroll_layer


def adapt(module: nnx.Module, carry: Any, *, mutable: Any = None) -> AdaptedModule:
    """Turns an nnx module into a cell.

    The module is split once, here. The cell is pure: each step merges a new module, so the given
    module never changes.

    Args:
      module: `module(carry, x) -> (carry, y)`: a cell of nnx, such as `nnx.LSTMCell`, or a module
        of your own with embedding, dropout, readout. The attributes that it has now, such as those
        that `module.train()` and `module.eval()` set, are those of the cell.
      carry: a first carry. A cell of nnx makes one: `cell.initialize_carry((B, D), rngs)`.
      mutable: the variables that a step updates, a filter of nnx such as `nnx.BatchStat`. They
        become a part of the carry, which is then the pair (carry of the module, variables). Let
        them be lasting leaves: `estimator.init(..., initial_carry=(model.carry[0], None))`. Nothing
        is differentiated through them.

    Returns:
      An `AdaptedModule`. Its params are the `nnx.State` of all `nnx.Param`; other variables are
      constants. To go back: `to_module(params)`, or `nnx.update(module, params)`; and
      `nnx.update(module, state.carry[1])` for the present `mutable` variables.

    Raises:
      ValueError: `mutable` selects no variable. Where the cell is called: if the module draws
        random numbers without a key, or changes a variable such as a batch statistic.
    """
    graphdef, params, updated, rest = nnx.split(module, nnx.Param, mutable, ...)
    if mutable is not None and not jax.tree.leaves(updated):
        raise ValueError(
            f"mutable={mutable!r} selects no variable of the module besides its nnx.Param; "
            "expected a filter such as nnx.BatchStat."
        )

    def to_module(params: Any, updated: Any = updated) -> Any:
        return nnx.merge(graphdef, params, updated, rest, copy=True)

    def cell(params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        x, key = split_key(x)
        if mutable is None:
            own = to_module(params)
        else:
            carry, updated = carry
            own = to_module(params, lax.stop_gradient(updated))
        if key is not None:
            _draw_from(own, key)
        constant = nnx.Not(nnx.Any(nnx.Param, mutable))
        before = _values(own, constant)
        new_carry, y = own(carry, x)
        _check_unchanged(before, _values(own, constant), has_key=key is not None)
        if mutable is None:
            return new_carry, y
        return (new_carry, lax.stop_gradient(nnx.state(own, mutable))), y

    carry = carry if mutable is None else (carry, updated)
    return AdaptedModule(cell, params, carry, to_module)


class RNN(nnx.Module):
    """A layer that runs a cell along a sequence, time first, with `artbp.unroll`.

    In an nnx model, in place of `nnx.RNN(cell, time_major=True, return_carry=True)`::

        self.rnn = artbp.adapters.nnx.RNN(nnx.GRUCell(16, 32, rngs=rngs))   # in __init__
        carry, ys = self.rnn(xs, gates=gates, resets=resets)                # in __call__

    Args:
      cell: a module `cell(carry, x) -> (carry, y)`. With dropout, xs is a pair (inputs, keys); see
        `artbp.adapters`.
      truncation_length: if given, no gradient flows back across every `truncation_length`-th step
        of a call, as in TBPTT. In place of gates. The carry that a call returns has its gradient;
        to cut between two calls of one gradient, hand over `jax.lax.stop_gradient(carry)`.
    """

    def __init__(self, cell: Any, *, truncation_length: int | None = None):
        self.cell = cell
        self.truncation_length = truncation_length

    def __call__(
        self,
        xs: Any,
        *,
        carry: Any = None,
        initial_carry: Any = None,
        gates: jax.Array | None = None,
        resets: jax.Array | None = None,
    ) -> tuple[Any, Any]:
        """Runs the cell along xs.

        Args:
          xs: the inputs, `[T, B, ...]`.
          carry: enters the first step. Default: `initial_carry`.
          initial_carry: enters where a sequence is reset. Default: the cell's `initialize_carry`
            with `nnx.Rngs(0)`, which is zeros for the cells of nnx.
          gates, resets: `[T]` or `[T, B]`, as for `artbp.unroll`.

        Returns:
          (carry after the last step, ys `[T, B, ...]`).
        """
        if initial_carry is None:
            x, _ = split_key(jax.tree.map(lambda leaf: leaf[0], xs))
            initial_carry = self.cell.initialize_carry(x.shape, nnx.Rngs(0))
        cell, params, initial_carry, _ = adapt(self.cell, initial_carry)
        return unroll_layer(
            cell, params, initial_carry, xs, carry, gates, resets, self.truncation_length
        )


def _draw_from(module: nnx.Module, key: jax.Array) -> None:
    """Sets the key of each random stream of the module to the key folded with its number."""
    streams = [node for _, node in nnx.iter_graph(module) if isinstance(node, nnx.RngStream)]
    for i, stream in enumerate(streams):
        own = jax.random.fold_in(key, i)
        shape = stream.key[...].shape  # of a stack of modules (nnx.vmap), several keys
        stream.key[...] = jax.random.split(own, shape) if shape else own
        stream.count[...] = jnp.zeros_like(stream.count[...])


def _values(module: nnx.Module, which: Any) -> dict[Any, tuple[Any, list[Any]]]:
    """{path: (type, leaves of the value)} of the variables that a filter chooses."""
    flat = nnx.to_flat_state(nnx.state(module, which))
    return {path: (type(of), jax.tree.leaves(of)) for path, of in flat}


def _check_unchanged(before: Any, after: Any, *, has_key: bool) -> None:
    """Raises ValueError if a variable has another value now; a random stream may, with a key."""
    for path in before | after:
        kind, new = after.get(path, before.get(path))
        old = before[path][1] if path in before and path in after else None
        if old is not None and len(new) == len(old) and all(map(operator.is_, new, old)):
            continue
        if not issubclass(kind, nnx.RngState):
            raise ValueError(changes_variables(f"{kind.__name__} {'.'.join(map(str, path))}"))
        if not has_key:
            raise ValueError(NO_KEY)
