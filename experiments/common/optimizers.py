"""An optax optimiser by name, with optional clipping; and learning rates that follow time steps."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.common.errors import ConfigError

OPTIMIZERS = (
    "sgd",
    "adam",
    "adamw",
    "adabelief",
    "adagrad",
    "lamb",
    "lion",
    "nadam",
    "radam",
    "rmsprop",
)
CLIPPING_HELP = (
    "Clipping biases a random gradient: the mean of clipped gradients is not the clipped mean, so "
    "ARTBP is no longer unbiased. The gradient of a segment is a sum over its steps, so that "
    "clipping hits the long segments, which carry the long dependencies, most."
)


def make_optimizer(
    name: str,
    *,
    learning_rate: float,
    options: Mapping[str, Any] | None = None,
    clip_value: float | None = None,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """`optax.NAME(learning_rate, **options)`, applied to the gradient as clipped.

    Clipping biases a random gradient, and hits the long segments most: see `CLIPPING_HELP`.

    Args:
        name: one of `OPTIMIZERS`.
        learning_rate: of each update, that is of each segment.
        options: further arguments of the optimiser, such as {"b2": 0.99}.
        clip_value: clips each entry of the gradient to [-clip_value, clip_value].
        clip_norm: scales a gradient whose global norm exceeds clip_norm down to it.

    Raises:
        ConfigError: another name, arguments that the optimiser does not take, both ways of
            clipping, or a rate or bound that is not a finite positive number.
    """
    if name not in OPTIMIZERS:
        raise ConfigError(f"optimizer {name!r}: expected one of {', '.join(OPTIMIZERS)}.")
    _check_positive("learning_rate", learning_rate)
    if clip_value is not None and clip_norm is not None:
        raise ConfigError("clip_value and clip_norm were both given: choose one way of clipping.")
    clipping = []
    if clip_value is not None:
        _check_positive("clip_value", clip_value)
        clipping = [optax.clip(clip_value)]
    if clip_norm is not None:
        _check_positive("clip_norm", clip_norm)
        clipping = [optax.clip_by_global_norm(clip_norm)]
    try:
        optimizer = getattr(optax, name)(learning_rate, **(options or {}))
        # optax looks at the values of most options in the first update only.
        jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), jnp.zeros(1))
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"optax.{name} does not take the options {dict(options or {})}: {error}"
        ) from error
    return optax.chain(*clipping, optimizer) if clipping else optimizer


def rate_by_time_step(rate: Callable[[Any], Any]) -> optax.GradientTransformationExtraArgs:
    """updates ← −rate(t) · updates, where t is the time step that the update comes after.

    optax counts updates instead, of which ARTBP makes as many as it draws segments. `train_whole`
    passes `time_step` to the optimiser.
    """

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params
        factor = -rate(extra["time_step"])
        return jax.tree.map(lambda u: (factor * u).astype(u.dtype), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _check_positive(name: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise ConfigError(f"{name} is {value!r}: expected a finite positive number.")
