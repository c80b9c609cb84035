"""Modules of flax linen as cells, and an RNN layer with gates for linen models."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import errors
from flax import linen as nn
from jax import lax

from artbp.adapters.base import NO_KEY, AdaptedModule, changes_variables, split_key, unroll_layer
from artbp.unrolls.checks import Cell


def adapt(
    module: nn.Module,
    x: Any,
    *,
    rng_key: jax.Array,
    carry: Any = None,
    mutable: str | Sequence[str] = (),
) -> AdaptedModule:
    """Turns a linen module into a cell, and initialises its params.

    Args:
      module: `module(carry, x) -> (carry, y)`: a cell of linen, such as `nn.OptimizedLSTMCell`, or
        a module of your own with embedding, dropout, readout.
      x: the inputs of one step, for the shapes: `[B, ...]`.
      rng_key: draws the params, and the carry where it is not given.
      carry: a first carry. Default: `module.initialize_carry(rng_key, x.shape)`, which the cells
        of linen have.
      mutable: the collection that a step updates, such as `"batch_stats"`, or several. They
        become a part of the carry, which is then the pair (carry of the module, collections). Let
        them be lasting leaves: `estimator.init(..., initial_carry=(model.carry[0], None))`.
        Nothing is differentiated through them.

    Returns:
      An `AdaptedModule`. Its params are the collection "params"; other collections are constants.
      To go back to a `TrainState`: `train_state.replace(params=params)`; the present collections
      are `state.carry[1]`.

    Raises:
      TypeError: `mutable` is neither a name nor several.
      ValueError: the module has no carry, or no collection `mutable`. Where the cell is called: the
        module draws random numbers without a key, or updates a variable such as a batch statistic.
    """
    if not isinstance(mutable, Sequence):  # a filter of flax, such as True
        raise TypeError(f"mutable={mutable!r}; expected names of collections, as ('batch_stats',).")
    params_key, carry_key = jax.random.split(rng_key)
    inputs, _ = split_key(x)
    if carry is None:
        if not hasattr(module, "initialize_carry"):
            name = type(module).__name__
            raise ValueError(f"{name} has no method initialize_carry. Pass adapt a first carry=….")
        carry = module.initialize_carry(carry_key, inputs.shape)
    variables = dict(module.init(params_key, carry, inputs))
    params = variables.pop("params", {})
    mutable = (mutable,) if isinstance(mutable, str) else tuple(mutable)
    if not set(mutable) <= set(variables):
        raise ValueError(
            f"mutable={mutable!r}; expected collections that module.init makes besides params: "
            f"{sorted(variables)}. Pass some of these, or leave mutable out."
        )
    constants = {name: tree for name, tree in variables.items() if name not in mutable}
    if mutable:
        carry = carry, {name: variables[name] for name in mutable}
    return AdaptedModule(
        _cell(module, constants, mutable),
        params,
        carry,
        lambda params: module.bind({**variables, "params": params}),
    )


class RNN(nn.Module):
    """A layer that runs a cell along a sequence, time first, with `artbp.unroll`.

    In a linen model, in place of `nn.RNN(cell, time_major=True, return_carry=True)`, whose params
    it shares::

        carry, ys = artbp.adapters.linen.RNN(nn.GRUCell(32))(xs, gates=gates, resets=resets)

    Attributes:
      cell: a module `cell(carry, x) -> (carry, y)`. With dropout, xs is a pair (inputs, keys); see
        `artbp.adapters`.
      truncation_length: if given, no gradient flows back across every `truncation_length`-th step
        of a call, as in TBPTT. In place of gates. The carry that a call returns has its gradient;
        to cut between two calls of one gradient, hand over `jax.lax.stop_gradient(carry)`.
    """

    cell: nn.Module
    truncation_length: int | None = None

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
            with `jax.random.key(0)`, which is zeros for the cells of linen.
          gates, resets: `[T]` or `[T, B]`, as for `artbp.unroll`.

        Returns:
          (carry after the last step, ys `[T, B, ...]`).
        """
        x, _ = split_key(jax.tree.map(lambda leaf: leaf[0], xs))
        if initial_carry is None:
            initial_carry = self.cell.initialize_carry(jax.random.key(0), x.shape)
        if self.is_initializing():
            self.cell(initial_carry if carry is None else carry, x)  # makes the params
        module, variables = self.cell.unbind()
        constants = {name: tree for name, tree in variables.items() if name != "params"}
        cell, params = _cell(module, constants), variables.get("params", {})
        return unroll_layer(
            cell, params, initial_carry, xs, carry, gates, resets, self.truncation_length
        )


def _cell(module: nn.Module, constants: Any, mutable: Sequence[str] = ()) -> Cell:
    """The module as a cell; see `adapt`."""

    def cell(params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        x, key = split_key(x)
        variables = {**constants, "params": params}
        try:
            if not mutable:
                return module.apply(variables, carry, x, rngs=key)
            carry, updated = carry
            variables |= lax.stop_gradient(updated)
            out, updated = module.apply(variables, carry, x, rngs=key, mutable=list(mutable))
            new_carry, y = out
            return (new_carry, lax.stop_gradient(updated)), y
        except errors.InvalidRngError as error:
            raise ValueError(NO_KEY) from error
        except errors.ModifyScopeVariableError as error:
            raise ValueError(changes_variables("a variable")) from error

    return cell
