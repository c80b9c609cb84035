"""Modules of flax linen, flax nnx, haiku and equinox as cells, and RNN layers with gates.

    model = artbp.adapters.nnx.adapt(module, carry)      # likewise linen, haiku and equinox
    estimator = artbp.artbp(model.cell, loss_fn, law)
    state = estimator.init(model.params, model.carry, rng_key=rng_key)

`adapt` returns an `AdaptedModule`: a cell, its params, a first carry, and a function that turns
params into a module again. `stack` puts several of them on top of each other.

**Random numbers** (dropout) come from keys in the stream. Where xs is a pair (inputs, keys), with
one typed key a step, the module draws from the key of the step. `artbp.with_keys` makes such a pair
before each estimate, with fresh dropout masks in each pass::

    stream = artbp.Stream(inputs, targets)
    grads, state, info = estimator.estimate(
        params, state, artbp.with_keys(stream, dropout_key, state)
    )

Keys that you put into the stream yourself stay the same, so their masks repeat in each pass::

    stream = artbp.Stream((inputs, jax.random.split(rng_key, num_steps)), targets)

A key in the carry, which your own cell splits in each step, works too: make it a lasting leaf, by
None in its place in the `initial_carry` of `estimator.init`.

**Resets** in the stream put the carry to zeros. For a module whose first carry is not zeros, pass
`initial_carry=model.carry` to `estimator.init`.

**Batch statistics**, and any other variables that a step changes, belong in the carry, because a
cell is a pure function. With the option `mutable`, the adapters of linen and nnx put them there, as
lasting leaves. Otherwise such modules are refused.

`import artbp` imports none of these libraries. flax is imported by the first use of
`adapters.linen` or `adapters.nnx`, haiku and equinox by the first call of their `adapt`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from artbp.adapters.base import AdaptedModule, stack

if TYPE_CHECKING:  # for type checkers and editors, which do not run __getattr__
    from artbp.adapters import equinox, haiku, linen, nnx

__all__ = [
    "AdaptedModule",
    "equinox",
    "haiku",
    "linen",
    "nnx",
    "stack",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"artbp.adapters.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
