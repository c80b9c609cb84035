"""Cores of haiku as cells."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from artbp.adapters.base import NO_KEY, AdaptedModule, changes_variables, needs_package, split_key


def adapt(
    make_core: Callable[[], Any], x: Any, *, rng_key: jax.Array, carry: Any = None
) -> AdaptedModule:
    """Turns a core of haiku into a cell, and initialises its params.

    Args:
      make_core: `make_core()` returns an `hk.RNNCore`, or any function `core(x, carry) -> (y,
        carry)`, in haiku's order. It is called within `hk.transform`: `lambda: hk.LSTM(32)`, or an
        `hk.DeepRNN` of embedding, cores and readout.
      x: the inputs of one step, for the shapes: `[B, ...]`.
      rng_key: draws the params.
      carry: a first carry. Default: the core's `initial_state(B)`.

    Returns:
      An `AdaptedModule`. Its params are those of haiku, so an `hk.transform` of your own around the
      same core takes them.

    Raises:
      ModuleNotFoundError: the package dm-haiku is not installed.
      ValueError: the core makes no first carry and none is given; it has a haiku state, such as
        batch statistics. Where the cell is called: it draws random numbers and x holds no key.
    """
    with needs_package("dm-haiku"):
        import haiku as hk

    inputs, _ = split_key(x)
    if carry is None:
        rows = jax.tree.leaves(inputs)[0].shape[0]
        try:
            carry = hk.transform(lambda: make_core().initial_state(rows)).apply({}, None)
        except (AttributeError, ValueError) as error:
            raise ValueError(
                "The core makes no first carry: it has no method initial_state, or one with "
                f"parameters ({error}). Pass adapt a first carry=….",
            ) from error
    transformed = hk.transform_with_state(lambda x, carry: make_core()(x, carry))
    params, state = transformed.init(rng_key, inputs, carry)
    if state:
        raise ValueError(changes_variables(f"the haiku state of {', '.join(state)}"))
    apply = hk.without_state(transformed).apply

    def cell(params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        x, key = split_key(x)
        try:
            y, carry = apply(params, key, x, carry)
        except ValueError as error:
            if key is None and "PRNGKey" in str(error):  # haiku has no type for this error
                raise ValueError(NO_KEY) from error
            raise
        return carry, y

    return AdaptedModule(cell, params, carry, lambda params: functools.partial(apply, params, None))
