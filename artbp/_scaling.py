"""An optax transformation that scales updates by an extra argument of `update`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def scale_by_argument(
    owner: str, name: str, remedy: str, factor_of: Callable[[Any], Any] = lambda value: value
) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by factor_of(value), where `update(..., NAME=value)` is given the value.

    Args:
      owner: the public name of the transformation, for its error.
      name: of the keyword argument.
      remedy: the end of the error where the argument is missing: what to pass.
      factor_of: from the value to the factor.
    """

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params
        if name not in extra:
            raise TypeError(f"{owner} was not given {name}. Pass {remedy}.")
        factor = jnp.asarray(factor_of(extra[name]))
        return jax.tree.map(lambda leaf: factor.astype(leaf.dtype) * leaf, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
