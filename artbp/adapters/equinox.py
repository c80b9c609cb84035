"""Modules of equinox as cells."""

from typing import Any

import jax

from artbp.adapters.base import AdaptedModule, changes_variables, needs_package, split_key


def adapt(module: Any, carry: Any) -> AdaptedModule:
    """Turns an equinox module into a cell.

    Modules of equinox are written for one row of the batch. The cell runs them under `jax.vmap`
    over the rows, with a key of its own for each row.

    Args:
      module: `module(carry, x) -> (carry, y)` for one row, or `module(carry, x, key=key)` where x
        holds a key; or `eqx.nn.GRUCell` or `eqx.nn.LSTMCell`, which are called in equinox's own
        way, and whose y is the hidden state.
      carry: a first carry, every leaf `[B, ...]`.

    Returns:
      An `AdaptedModule`. Its params are the module with None in place of all leaves but the float
      arrays (`eqx.partition`). The other leaves are constants.

    Raises:
      ModuleNotFoundError: the package equinox is not installed.
      ValueError: the module has a state (`eqx.nn.State`), such as batch statistics.
    """
    with needs_package("equinox"):
        import equinox as eqx

    params, static = eqx.partition(module, eqx.is_inexact_array)
    is_state = lambda node: isinstance(node, eqx.nn.StateIndex)  # noqa: E731
    if any(map(is_state, jax.tree.leaves(module, is_leaf=is_state))):
        raise ValueError(changes_variables("an eqx.nn.State"))

    def to_module(params: Any) -> Any:
        return eqx.combine(params, static)

    def cell(params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        x, key = split_key(x)
        own = to_module(params)

        def of_row(carry: Any, x: Any, key: Any) -> tuple[Any, Any]:
            if isinstance(own, eqx.nn.GRUCell | eqx.nn.LSTMCell):
                carry = own(x, carry)
                return carry, carry[0] if isinstance(carry, tuple) else carry
            return own(carry, x) if key is None else own(carry, x, key=key)

        if key is not None:
            key = jax.random.split(key, jax.tree.leaves(carry)[0].shape[0])
        return jax.vmap(of_row)(carry, x, key)

    return AdaptedModule(cell, params, carry, to_module)
