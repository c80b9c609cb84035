"""An optax optimiser by name, with optional clipping in front of it."""

from collections.abc import Mapping
from typing import Any

import optax

from experiments.common.errors import ConfigError

CLIPPING_HELP = (
    "Clipping biases a random gradient: the mean of clipped gradients is not the clipped mean, so "
    "ARTBP is no longer unbiased. The gradient of a segment is a sum over its steps, so that "
    "clipping hits the long segments, which carry the long dependencies, most."
)


def make_optimizer(
    name: str,
    *,
    learning_rate: float | optax.Schedule,
    options: Mapping[str, Any] | None = None,
    clip_value: float | None = None,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """`optax.NAME(learning_rate, **options)`, applied to the gradient as clipped.

    Clipping biases a random gradient, and hits the long segments most: see `CLIPPING_HELP`.

    Args:
        name: any optimiser of optax that takes a learning rate, such as "sgd" or "adam".
        learning_rate: a number, or a schedule. optax schedules count updates, that is segments,
            not time steps.
        options: further arguments of the optimiser, such as {"b2": 0.99}.
        clip_value: clips each entry of the gradient to [-clip_value, clip_value].
        clip_norm: scales a gradient whose global norm exceeds clip_norm down to it.

    Raises:
        ConfigError: no such optimiser, arguments it does not take, both ways of clipping, or
            a bound that is not positive.
    """
    factory = getattr(optax, name, None)
    if not callable(factory):
        raise ConfigError(f"optax has no optimiser {name!r}: give a name such as 'sgd' or 'adam'.")
    try:
        optimizer = factory(learning_rate, **(options or {}))
    except TypeError as error:
        raise ConfigError(f"optax.{name} does not take these options: {error}") from error
    if not isinstance(optimizer, optax.GradientTransformation):
        raise ConfigError(f"optax.{name} is not an optimiser: give a name such as 'sgd'.")
    if clip_value is not None and clip_norm is not None:
        raise ConfigError("clip_value and clip_norm were both given: choose one way of clipping.")
    for bound_name, bound in (("clip_value", clip_value), ("clip_norm", clip_norm)):
        if bound is not None and not bound > 0:
            raise ConfigError(f"{bound_name} is {bound}: expected a positive number, or None.")
    if clip_value is not None:
        return optax.chain(optax.clip(clip_value), optimizer)
    if clip_norm is not None:
        return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
    return optimizer
