"""Shared parts of the adapters: their result, the key of a step, stacks, and the RNN layer."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp._checks import check_positive
from artbp.unrolls.checks import Cell
from artbp.unrolls.unroll import unroll


class AdaptedModule(NamedTuple):
    """A module of another library as a cell, for every estimator and for `artbp.unroll`.

    Attributes:
      cell: `cell(params, carry, x) -> (carry, y)`, a pure function. Where x is a pair (input, key),
        with a typed key, the module draws its random numbers from the key.
      params: the trainable parameters, as the library arranges them. optax takes them and their
        gradients.
      carry: a first carry. With `mutable` variables of flax, the pair (carry of the module,
        variables).
      to_module: `to_module(params)` is the module at these params: a new nnx or equinox module, a
        bound linen module, or haiku's `core(x, carry) -> (y, carry)`. Variables other than params
        have the values that they had in `adapt`.
    """

    cell: Cell
    params: Any
    carry: Any
    to_module: Callable[[Any], Any]


NO_KEY = (
    "The module draws random numbers (dropout), but x holds no key. Add keys to the stream with "
    "artbp.with_keys, or let its xs be a pair (inputs, jax.random.split(rng_key, num_steps)), or "
    "put the module in evaluation mode."
)


@contextlib.contextmanager
def needs_package(package: str) -> Iterator[None]:
    """Names the package on the package index in the error of an import that does not find it."""
    try:
        yield
    except ModuleNotFoundError as error:
        error.add_note(f"artbp: this adapter needs the package {package}: pip install {package}")
        raise


def changes_variables(which: Any) -> str:
    """The error message for a module that changes a variable in a step."""
    return (
        f"A step of the module changes {which}. A cell is a pure function, so batch statistics and "
        "other variables that a step updates belong in the carry. For flax, pass the option "
        "`mutable` of artbp.adapters.linen.adapt or artbp.adapters.nnx.adapt, which puts them "
        "there. Otherwise, write a cell that does so, with None for them in the initial_carry of "
        "estimator.init; or use the running averages without an update, or a LayerNorm."
    )


def split_key(x: Any) -> tuple[Any, jax.Array | None]:
    """(input, key) if x is such a pair, with a typed key, else (x, None)."""
    if isinstance(x, tuple) and len(x) == 2 and _tree.is_key(x[1]):
        return x
    return x, None


def stack(models: Sequence[AdaptedModule]) -> AdaptedModule:
    """Puts adapted modules on top of each other: each reads the y of the one before it.

    Params and carry are tuples with an entry for each of the models, `to_module` returns a list of
    modules, and the key of a step, where there is one, is folded with 0, 1, ... for the models.
    """
    models = list(models)

    def cell(params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        x, key = split_key(x)
        entering = zip(models, params, carry, strict=True)
        new_carry = []
        for i, (model, params_i, carry_i) in enumerate(entering):
            inputs = x if key is None else (x, jax.random.fold_in(key, i))
            carry_i, x = model.cell(params_i, carry_i, inputs)
            new_carry.append(carry_i)
        return tuple(new_carry), x

    return AdaptedModule(
        cell,
        params=tuple(model.params for model in models),
        carry=tuple(model.carry for model in models),
        to_module=lambda params: [
            model.to_module(own) for model, own in zip(models, params, strict=True)
        ],
    )


def unroll_layer(
    cell: Cell,
    params: Any,
    initial_carry: Any,
    xs: Any,
    carry: Any,
    gates: jax.Array | None,
    resets: jax.Array | None,
    truncation_length: int | None,
) -> tuple[Any, Any]:
    """`artbp.unroll` for the RNN layers; `carry` None is `initial_carry`.

    Raises:
      ValueError: both gates and a truncation length, or one that is no integer ≥ 1.
    """
    if truncation_length is not None:
        check_positive(truncation_length=truncation_length, integer=True)
        if gates is not None:
            raise ValueError("Got gates and truncation_length; expected one of them, or neither.")
        num_steps = jax.tree.leaves(xs)[0].shape[0]
        # Behind the last step there is nothing to cut: the carry that is returned has its gradient.
        steps = jnp.arange(1, num_steps + 1)
        is_boundary = (steps % truncation_length == 0) & (steps < num_steps)
        gates = jnp.where(is_boundary, 0.0, 1.0)
    carry = initial_carry if carry is None else carry
    return unroll(cell, params, carry, xs, gates=gates, resets=resets, initial_carry=initial_carry)
